"""Listens on 127.0.0.1 for one pool, and echoes: `server.py TASK`, the task as echo.py has it."""

import socket

import echo
import wire


def main():
    task, us = echo.task()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(wire.PATIENCE)
    echo.say({"port": listener.getsockname()[1]})
    stream, _ = listener.accept()
    line = wire.Line(stream, echo.fault(task))
    echo.run(task, line, lambda: wire.respond(us, line))


main()
