//! Driver: nodes as processes of their own, for the demo and for fault scripts. They end with the process that started them, however that ends,
//! because each watches a pipe that only it holds open.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two looks at a node.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A cluster that is not ready by then will not be.
pub(crate) const READY_LOOKS_MAX: u32 = 1200;
/// Nodes are killed if they have not stopped by then.
pub(crate) const STOP_LOOKS_MAX: u32 = 100;

/// One node of the demo.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) number: u16,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) sql: SocketAddr,
    pub(crate) rpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) data: PathBuf,
}

impl Member {
    /// The node id that its data directory was given by the cluster; none yet for a new one.
    pub(crate) fn node_id(&self) -> Option<u32> {
        let identity = fs::read_to_string(self.data.join("MERIDIAN")).ok()?;
        identity.lines().find_map(|line| line.strip_prefix("node "))?.parse().ok()
    }

    /// As the cluster calls it.
    pub(crate) fn name(&self) -> String {
        self.node_id().map_or_else(|| "?".to_string(), |id| format!("n{id}"))
    }
}

/// The processes.
pub(crate) struct Nodes {
    pub(crate) members: Vec<Member>,
    pub(crate) latency_file: PathBuf,
    pub(crate) children: Mutex<Vec<Child>>,
}

impl Nodes {
    pub(crate) fn new(members: &[Member], latency_file: &Path) -> Nodes {
        Nodes {
            members: members.to_vec(),
            latency_file: latency_file.to_path_buf(),
            children: Mutex::default(),
        }
    }

    /// Starts all of them. Node ids are given in the order of admission: of a new cluster, the first node is started alone and founds
    /// it, each other one when the one before was admitted. Nodes that belong to a cluster already need each other, and start at once.
    pub(crate) fn start(&self, stop: &AtomicBool) -> Result<(), String> {
        let is_new = self.members.iter().all(|member| member.node_id().is_none());
        let everybody: Vec<SocketAddr> = self.members.iter().map(|member| member.rpc).collect();
        for (place, member) in self.members.iter().enumerate() {
            // Alone only if nobody belongs to a cluster: a wiped first node must not found a second one beside the living.
            let join = if is_new && place == 0 { &everybody[..1] } else { &everybody[..] };
            let child = self.start_one(member, join)?;
            self.children().push(child);
            if is_new {
                self.wait_until("its admission", stop, || member.node_id().is_some())?;
            }
        }
        Ok(())
    }

    pub(crate) fn wait_until(
        &self,
        what: &str,
        stop: &AtomicBool,
        reached: impl Fn() -> bool,
    ) -> Result<(), String> {
        for _ in 0..READY_LOOKS_MAX {
            if reached() {
                return Ok(());
            }
            if stop.load(Ordering::SeqCst) {
                return Err("stopped before the cluster was ready".to_string());
            }
            if let Some((place, last_words)) = self.ended() {
                return Err(format!("node n{} ended: {last_words}", place + 1));
            }
            pause(LOOK_INTERVAL);
        }
        Err(format!("a node waits for {what}; see the logs in the data directory"))
    }

    pub(crate) fn children(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.children.lock().expect("nobody panics while holding the list")
    }

    pub(crate) fn start_one(&self, member: &Member, join: &[SocketAddr]) -> Result<Child, String> {
        let log = self.log_file(member);
        fs::create_dir_all(log.parent().expect("a log file has a directory"))
            .map_err(|error| error.to_string())?;
        let output = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| format!("{}: {error}", log.display()))?;
        let join: Vec<String> = join.iter().map(SocketAddr::to_string).collect();
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        Command::new(program)
            .arg("start")
            .arg("--data")
            .arg(&member.data)
            .args(["--locality", &format!("region={},zone={}", member.region, member.zone)])
            .args(["--sql-addr", &member.sql.to_string(), "--rpc-addr", &member.rpc.to_string()])
            .args(["--http-addr", &member.http.to_string(), "--join", &join.join(",")])
            .args(["--allow-chaos", "--stop-with-stdin", "--latency-file"])
            .arg(&self.latency_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            // Ctrl-C in a terminal is for whoever started them, and goes to everybody in its group.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("node {} cannot be started: {error}", member.number + 1))
    }

    pub(crate) fn log_file(&self, member: &Member) -> PathBuf {
        let directory =
            self.latency_file.parent().expect("the latency file is in the data directory");
        directory.join("logs").join(format!("n{}.log", member.number + 1))
    }

    /// A node that has ended, with what its log says last.
    pub(crate) fn ended(&self) -> Option<(usize, String)> {
        let mut children = self.children();
        let place =
            children.iter_mut().position(|child| matches!(child.try_wait(), Ok(Some(_))))?;
        let log = fs::read_to_string(self.log_file(&self.members[place])).unwrap_or_default();
        Some((place, log.lines().last().unwrap_or("it left no word").to_string()))
    }

    pub(crate) fn restart(&self, place: usize) {
        let everybody: Vec<SocketAddr> = self.members.iter().map(|member| member.rpc).collect();
        match self.start_one(&self.members[place], &everybody) {
            Ok(child) => self.children()[place] = child,
            Err(why) => eprintln!("{why}"),
        }
    }

    /// Ends processes at once, as `kill -9` does. One that does not run stays so.
    pub(crate) fn kill(&self, places: &[usize]) -> Result<(), String> {
        let mut children = self.children();
        let failed = |error: std::io::Error| error.to_string();
        for place in places {
            children.get_mut(*place).ok_or("there is no such node")?.kill().map_err(failed)?;
        }
        places.iter().try_for_each(|place| children[*place].wait().map(drop).map_err(failed))
    }

    /// Starts a node again, if it does not run.
    pub(crate) fn revive(&self, place: usize) -> Result<(), String> {
        let ended = matches!(self.children()[place].try_wait(), Ok(Some(_)));
        if ended {
            self.restart(place);
        }
        Ok(())
    }

    /// Sends a signal by its name; to one that has ended, nothing.
    pub(crate) fn signal(&self, place: usize, name: &str) -> Result<(), String> {
        let mut children = self.children();
        // The number of one that was waited for may be somebody else's by now.
        if matches!(children[place].try_wait(), Ok(Some(_))) {
            return Ok(());
        }
        let id = children[place].id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).output();
        sent.map(drop).map_err(|error| format!("kill -{name}: {error}"))
    }

    /// Closes the pipes, waits, and kills who does not listen.
    pub(crate) fn stop(&self) {
        let mut children = self.children();
        for child in children.iter_mut() {
            drop(child.stdin.take());
        }
        for _ in 0..STOP_LOOKS_MAX {
            if children.iter_mut().all(|child| matches!(child.try_wait(), Ok(Some(_)))) {
                return;
            }
            pause(LOOK_INTERVAL);
        }
        for child in children.iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[allow(clippy::disallowed_methods)] // A supervisor of processes lives in real time.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Whether `/ready` answers 200; `among`: and as far as the node knows a cluster of so many would bear the loss of one.
pub(crate) fn is_ready(http: SocketAddr, among: Option<usize>) -> bool {
    let wanted = among.map_or_else(String::new, |nodes| format!("?nodes={nodes}"));
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&http, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(format!("GET /ready{wanted} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = [0_u8; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200 OK"))
    };
    ask().unwrap_or(false)
}
