//! Measures noise-pool against what a router would otherwise use, and against the limits of the
//! machine. See README.md for the method.

mod alloc;
mod charts;
mod ends;
mod groups;
mod harness;
mod machine;
mod pools;
mod process;
mod report;
mod turns;
mod wire;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use groups::Group;
use harness::Settings;
use machine::Machine;
use report::Report;

/// Measures noise-pool against its peers and against the limits.
#[derive(Parser)]
struct Arguments {
    /// `all`, or names of groups or targets: `hit`, `tput`, `G7`.
    #[arg(required = true)]
    what: Vec<String>,
    /// All groups in under five minutes; the figures are rough.
    #[arg(long)]
    quick: bool,
    /// Only messages of so many bytes, where a group has several sizes.
    #[arg(long)]
    size: Option<usize>,
    /// Writes the targets and their figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws bar charts into this folder.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What the bench calls itself with: runs a part of a group, and prints what it says as JSON.
    #[arg(long, hide = true)]
    part: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.part {
        let (name, rest) = arguments.what.split_first().ok_or("a part has a name")?;
        let part = groups::PARTS.iter().find(|(known, _)| known == name).ok_or("no such part")?;
        println!("{}", (part.1)(rest));
        return Ok(ExitCode::SUCCESS);
    }
    let groups = match chosen(&arguments.what) {
        Ok(groups) => groups,
        Err(unknown) => {
            eprintln!("nothing is named {unknown:?}; there are:");
            for group in groups::ALL {
                eprintln!("  {:10} {}", group.name, group.targets.join(" "));
            }
            return Ok(ExitCode::from(2));
        }
    };
    let settings = Settings { quick: arguments.quick, size: arguments.size };
    let mut report = Report::default();
    for group in groups {
        println!("\n{}: {}", group.name, Machine::now());
        (group.run)(&settings, &mut report);
    }
    println!("\n{}", report.summary());
    if let Some(path) = arguments.json {
        fs::write(path, format!("{:#}\n", report.json()))?;
    }
    if let Some(folder) = arguments.svg {
        charts::draw(&folder, &report.charts)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The groups of these names, in order and once each; or the name that there is not.
fn chosen(names: &[String]) -> Result<Vec<&'static Group>, &String> {
    let is = |group: &Group, name: &str| {
        name == "all"
            || group.name.eq_ignore_ascii_case(name)
            || group.targets.iter().any(|target| target.eq_ignore_ascii_case(name))
    };
    if let Some(unknown) = names.iter().find(|name| !groups::ALL.iter().any(|g| is(g, name))) {
        return Err(unknown);
    }
    Ok(groups::ALL.iter().filter(|group| names.iter().any(|name| is(group, name))).collect())
}
