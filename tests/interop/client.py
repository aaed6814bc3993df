"""Dials a pool, and echoes: `client.py TASK`, the task as echo.py has it."""

import socket

import echo
import wire


def connect(task):
    host, port = task["address"].rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=wire.PATIENCE)


def main():
    task, us = echo.task()
    line = wire.Line(connect(task), echo.fault(task))
    echo.run(task, line, lambda: wire.initiate(us, line, bytes.fromhex(task["peer"])))
    if task.get("replay"):
        # What was said before, word by word, as somebody says it who has recorded it.
        again = wire.Line(connect(task))
        again.sock.sendall(line.written["message 1"])
        echo.say(again.silence())


main()
