//! `meridian sql`: the shell. Reads statements from a terminal (with history) or from standard input, prints results as psql does.

mod meta;
mod print;
mod split;

use clap::Args;
use rustyline::error::ReadlineError;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::ExitCode;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::url::{DEFAULT_URL, Url};
use meta::Meta;
use print::Layout;

/// The shell.
#[derive(Args)]
pub(crate) struct SqlArguments {
    /// postgresql://user@host:port/database or meridian://user@host:port/database; several hosts separated by commas.
    #[arg(default_value = DEFAULT_URL)]
    url: String,
    /// Run these statements and leave.
    #[arg(short = 'c', long)]
    command: Option<String>,
}

/// Longest line of history kept.
const HISTORY_FILE: &str = ".meridian_history";

/// Runs the shell to its end. Leaves with failure if a statement of a script failed.
pub(crate) fn run(arguments: &SqlArguments) -> Result<ExitCode, String> {
    let url = Url::parse(&arguments.url)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let backend = runtime
        .block_on(Backend::connect(&url, "meridian sql"))
        .map_err(|error| error.to_string())?;
    let at_terminal = arguments.command.is_none() && std::io::stdin().is_terminal();
    let mut shell = Shell {
        runtime,
        backend,
        layout: Layout::Aligned,
        timing: false,
        failed: false,
        at_terminal,
    };
    match &arguments.command {
        Some(text) => shell.run_script(&mut text.as_bytes())?,
        None if at_terminal => shell.converse()?,
        // Line by line: whoever writes into the pipe may wait for the answers.
        None => shell.run_script(&mut std::io::stdin().lock())?,
    }
    Ok(if shell.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Shell {
    runtime: tokio::runtime::Runtime,
    backend: Backend,
    layout: Layout,
    timing: bool,
    failed: bool,
    /// Whether somebody types: then Ctrl-C cancels a statement.
    at_terminal: bool,
}

/// Whether the shell goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    Leave,
}

impl Shell {
    fn converse(&mut self) -> Result<(), String> {
        println!(
            "Meridian {}. Statements end with `;`, \\? helps, \\q leaves.",
            env!("CARGO_PKG_VERSION")
        );
        let mut editor = rustyline::DefaultEditor::new().map_err(|error| error.to_string())?;
        let history =
            std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(HISTORY_FILE));
        if let Some(history) = &history {
            let _ = editor.load_history(history);
        }
        let mut pending = String::new();
        loop {
            let prompt = if pending.is_empty() {
                format!("{}=> ", self.backend.place())
            } else {
                "-> ".to_string()
            };
            match editor.readline(&prompt) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    if pending.is_empty() && line.trim_start().starts_with('\\') {
                        if self.meta(&line) == Next::Leave {
                            break;
                        }
                        continue;
                    }
                    if pending.is_empty() && matches!(line.trim(), "exit" | "quit") {
                        break;
                    }
                    pending += &line;
                    pending.push('\n');
                    pending = self.run_complete(&pending);
                }
                Err(ReadlineError::Interrupted) => pending.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        if let Some(history) = &history {
            let _ = editor.save_history(history);
        }
        Ok(())
    }

    /// Runs all complete statements; what is left is not complete.
    fn run_complete(&mut self, text: &str) -> String {
        let mut rest = text;
        while let Some((statement, after)) = split::first_statement(rest) {
            self.run_statement(statement);
            rest = after;
        }
        if split::is_blank(rest) { String::new() } else { rest.trim_start().to_string() }
    }

    fn run_script(&mut self, script: &mut dyn BufRead) -> Result<(), String> {
        let mut pending = String::new();
        for line in script.lines() {
            let line = line.map_err(|error| error.to_string())?;
            if pending.is_empty() && line.trim_start().starts_with('\\') {
                if self.meta(&line) == Next::Leave {
                    return Ok(());
                }
                continue;
            }
            pending += &line;
            pending.push('\n');
            pending = self.run_complete(&pending);
        }
        if !split::is_blank(&pending) {
            self.run_statement(&pending);
        }
        Ok(())
    }

    fn run_statement(&mut self, statement: &str) {
        let start = Instant::now();
        let (backend, at_terminal) = (&mut self.backend, self.at_terminal);
        let answers = self.runtime.block_on(async {
            // A script ends with Ctrl-C, as any program.
            let interrupted = async {
                match at_terminal {
                    true => tokio::signal::ctrl_c().await.expect("signals can be listened to"),
                    false => std::future::pending().await,
                }
            };
            backend.query_until(statement, interrupted).await
        });
        match answers {
            Ok(answers) => {
                for answer in answers {
                    answer.notices.iter().for_each(|notice| eprintln!("NOTICE:  {notice}"));
                    print!("{}", print::answer(&answer, self.layout));
                }
            }
            Err(error) => {
                self.failed = true;
                eprint!("{}", print::error(statement, &error));
            }
        }
        if self.timing {
            println!("Time: {:.3} ms", start.elapsed().as_secs_f64() * 1000.0);
        }
    }

    fn meta(&mut self, line: &str) -> Next {
        match meta::parse(line) {
            Meta::Quit => return Next::Leave,
            Meta::Help => print!("{}", meta::HELP),
            Meta::Timing => {
                self.timing = !self.timing;
                println!("Timing is {}.", if self.timing { "on" } else { "off" });
            }
            Meta::Expanded => {
                let expanded = self.layout == Layout::Expanded;
                self.layout = if expanded { Layout::Aligned } else { Layout::Expanded };
                println!("Expanded display is {}.", if expanded { "off" } else { "on" });
            }
            Meta::Include(file) => {
                let script = File::open(&file).map_err(|error| error.to_string());
                if let Err(why) = script.and_then(|file| self.run_script(&mut BufReader::new(file)))
                {
                    eprintln!("{file}: {why}");
                }
            }
            Meta::Connection => println!("Connected to {}.", self.backend.place()),
            Meta::Query(sql) => self.run_statement(&sql),
            Meta::Unknown(command) => eprintln!("{command} is not a command here; \\? lists them"),
        }
        Next::Line
    }
}
