//! What a user can do wrong: each gets a clear error, and nothing is lost.

use crate::harness::{
    Cluster, Ports, REGIONS, alone, free_ports, is_ready, meridian, now, psql, wait_until,
};
use crate::wire::{Answer, Wire, frame, startup};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Ports of nobody.
fn run(arguments: &[String], dir: &Path) -> (Option<i32>, String) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    meridian(&arguments, dir)
}

/// `meridian ARGUMENTS` ends with this code, and says each of these.
fn expect(arguments: &[&str], dir: &Path, code: i32, says: &[&str]) {
    let (ended, said) = meridian(arguments, dir);
    assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    for part in says {
        assert!(said.contains(part), "{arguments:?} does not say `{part}`: {said}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    expect(&["frobnicate"], at, 2, &["unrecognized subcommand 'frobnicate'", "Usage"]);
    expect(&["start", "--frob"], at, 2, &["unexpected argument '--frob'", "Usage: "]);
    expect(&["demo", "--nodes-per-region", "0"], at, 2, &["'0'", "--nodes-per-region", "1..=16"]);
    expect(&["workload", "kv", "--duration", "0"], at, 2, &["--duration", "1..=86400"]);
    let start = ["start", "--data", "data", "--locality"];
    let with = |more: &[&'static str]| [&start[..], more].concat();
    expect(&with(&["zone=a"]), at, 1, &["locality `zone=a`", "region=NAME"]);
    let garbage = with(&["region=a", "--join", "garbage"]);
    expect(&garbage, at, 1, &["--join", "`garbage`", "HOST:PORT"]);
    fs::write(at.join("bad.txt"), "# round trips\nus-east eu-west 10\nus-east eu-west ten\n")
        .unwrap();
    let file = with(&["region=a", "--latency-file", "bad.txt"]);
    expect(&file, at, 1, &["bad.txt", "line 3", "milliseconds"]);
    expect(&["demo", "--no-shell", "--latency", "bad.txt"], at, 1, &["bad.txt", "line 3"]);
    expect(&["sql", "htp:/x"], at, 1, &["URL `htp:/x`", "postgresql://"]);
    expect(&["sql", "postgresql://a:b/c"], at, 1, &["port is not a number"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let address = taken.to_string();
    let used = with(&["region=a"]);
    let used = [&used[..], &["--sql-addr", "127.0.0.1:0", "--rpc-addr", &address]].concat();
    expect(&used, at, 1, &["RPC address", &address, "in use", "--rpc-addr"]);
    drop(holder);
    let left: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bad.txt"], "no data directory was made");

    let nobody = format!("127.0.0.1:{}", free_ports(1)[0]);
    let start = now();
    for scheme in ["meridian", "postgresql"] {
        let url = format!("{scheme}://root@{nobody}/meridian");
        expect(&["sql", &url, "-c", "SELECT 1"], at, 1, &["no node answers"]);
        expect(&["workload", "bank", "--url", &url], at, 1, &["no node answers"]);
        expect(&["workload", "kv", "--url", &url], at, 1, &["no node answers"]);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn nothing_that_a_client_sends_stops_a_node() {
    let _alone = alone();
    let cluster = Cluster::start("");
    cluster.sql(0, "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (7)").unwrap();
    let before = cluster.memory_mib(0);
    broken_frames(&cluster);
    let grown = cluster.memory_mib(0).saturating_sub(before);
    assert!(grown < 64, "memory grew by {grown} MiB");
    other_ports_garbage(&cluster);
    oversized_statements(&cluster);
    roles(&cluster);
    table_modes(&cluster);
    for place in 0..3 {
        assert_eq!(cluster.sql(place, "SELECT id FROM kept").unwrap(), "7");
    }
}

fn broken_frames(cluster: &Cluster) {
    let port = cluster.ports[0].sql;
    let wrong = "08P01 invalid length of startup packet";
    let huge = [&0x7fff_ffff_u32.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
    for bytes in [&[0xde, 0xad, 0xbe, 0xef][..], &huge, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut wire = Wire::open(port);
        wire.send(bytes);
        assert_eq!(wire.answer().last_words(), wrong, "{bytes:?}");
    }
    // Encryption is asked for, refused, and begun nevertheless.
    let mut wire = Wire::open(port);
    wire.send(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(wire.byte(), b'N');
    wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(wire.answer().last_words(), wrong);
    // Kept open for the whole of the test: silence must not keep others from being served.
    let mut silent = Wire::open(port);
    silent.send(&startup()[..10]);

    for (bytes, why) in [
        (&b"Q\x7f\xff\xff\xff"[..], "08P01 invalid message length 2147483647"),
        (b"Q\0\0\0\x02xxxx", "08P01 invalid message length 2"),
        (b"\xff\0\0\0\x14xxxx", "08P01 invalid frontend message type 255"),
    ] {
        let mut wire = Wire::session(port);
        wire.send(bytes);
        assert_eq!(wire.answer().last_words(), why);
    }
    // Frames that are whole, and wrong inside: an error, and the connection goes on.
    let mut wire = Wire::session(port);
    let sync = frame(b'S', b"");
    for (broken, why) in [
        (frame(b'B', b"\0\0\x7f\xff"), "08P01 insufficient data left in message"),
        (frame(b'P', b"abc"), "08P01 invalid string in message"),
        (frame(b'P', b"\0SELECT 1\0\0\0x"), "08P01 invalid message format"),
        (frame(b'D', b"X\0"), "08P01 invalid DESCRIBE or CLOSE message subtype"),
    ] {
        wire.send(&[broken, sync.clone()].concat());
        assert_eq!(wire.answer().error(), why);
    }
    for (text, why) in [
        (&b"SELECT '\xff\xfe'\0"[..], "22021 invalid byte sequence for encoding \"UTF8\": 0xff"),
        (b"SELECT 1\0\0more\0", "08P01 invalid message format"),
    ] {
        wire.send(&frame(b'Q', text));
        assert_eq!(wire.answer().error(), why);
    }
    let nul = b"\0\0\0\0\0\x01\0\0\0\x02a\0\0\0";
    wire.send(&[frame(b'P', b"\0SELECT $1::text\0\0\0"), frame(b'B', nul), sync].concat());
    assert_eq!(wire.answer().error(), "22021 invalid byte sequence for encoding \"UTF8\": 0x00");
    assert_eq!(wire.query("SELECT 1"), Answer::Ready(Vec::new()));
    // A message that is announced, and never comes.
    let mut wire = Wire::session(port);
    wire.send(b"Q\x03\x00\x00\x00SELECT");
    assert_eq!(psql(port, "SELECT 1").unwrap(), "1");
    drop(silent);
}

fn other_ports_garbage(cluster: &Cluster) {
    let Ports { rpc, http, .. } = cluster.ports[0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xff; 300][..]].concat();
    let long = [b"GET /", &[b'a'; 200_000][..], b" HTTP/1.1\r\n\r\n"].concat();
    for bytes in [&[0xde; 200][..], &startup(), &preface, &long, b"GET / HTTP/1.1\r\n\r\n"] {
        for port in [rpc, http] {
            let mut wire = Wire::open(port);
            wire.send(bytes);
            wire.rest();
        }
    }
    assert!(is_ready(http, None));
    let file = cluster.dir.path().join("long.sql");
    fs::write(&file, format!("SELECT length('{}');\n", "x".repeat(70_000_000))).unwrap();
    let include = format!("\\i {}", file.display());
    let (code, said) = meridian(&["sql", &cluster.url(), "-c", &include], cluster.dir.path());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the statement is too long") && said.contains("54000"), "{said}");
    assert_eq!(cluster.sql(0, "SELECT 1").unwrap(), "1");
    fs::remove_file(file).unwrap();
}

fn oversized_statements(cluster: &Cluster) {
    let mut wire = Wire::session(cluster.ports[0].sql);
    let ok = Answer::Ready(Vec::new());
    assert_eq!(wire.query("CREATE TABLE big (id text PRIMARY KEY, v text)"), ok);
    let repeated = |what: &str, count: usize| what.repeat(count);
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let joined = |count: usize| {
        let items: Vec<String> = (0..count).map(|i| format!("kept k{i}")).collect();
        format!("SELECT 1 FROM {}", items.join(", "))
    };
    for (text, why) in [
        (
            "INSERT INTO big VALUES (repeat('k', 1048576), '')".into(),
            "54000 a key of table \"big\"",
        ),
        (
            "INSERT INTO big VALUES ('a', repeat('v', 30000000))".into(),
            "54000 value: 30000011 bytes",
        ),
        (nested("(", "1", ")", 10_000), "54001 stack depth limit exceeded"),
        (format!("SELECT true{}", repeated(" AND true", 10_000)), "54001 "),
        (nested("NOT ", "true", "", 10_000), "54001 stack depth limit exceeded"),
        (nested("(SELECT ", "1", ")", 1_000), "54001 stack depth limit exceeded"),
        (format!("SELECT 1{}", repeated(" UNION ALL SELECT 1", 1_000)), "54001 "),
        (joined(1_000), "54001 a statement may name up to 250 tables"),
        ("SELECT repeat('x', 1000000) FROM generate_series(1, 1000)".into(), "53200 out of memory"),
        ("SELECT * FROM generate_series(1, 100000000000)".into(), "54000 generate_series"),
        ("SELECT $70000".into(), "42P02 there is no parameter $70000"),
        ("SELECT chr(0)".into(), "54000 null character not permitted"),
        ("SELECT U&'\\0000'".into(), "22021 invalid byte sequence"),
        ("SELECT E'a\\000b'".into(), "42601 unterminated quoted string, or an escape"),
    ] {
        let error = wire.query(&text).error();
        assert!(error.starts_with(why), "{}: {error}", &text[..text.len().min(60)]);
    }
    // Up to the limits a statement must run: each level of it takes stack.
    for text in [
        nested("(SELECT ", "1", ")", 40),
        format!("SELECT 1{}", repeated(" UNION ALL SELECT 1", 240)),
        joined(250),
    ] {
        assert_eq!(wire.query(&text), ok, "{}", &text[..60]);
    }
    let numbers: Vec<String> = (1..=65_536).map(|number| format!("${number}")).collect();
    let parse = format!("\0SELECT 1 WHERE 1 IN ({})\0\0\0", numbers.join(","));
    wire.send(&[frame(b'P', parse.as_bytes()), frame(b'S', b"")].concat());
    assert_eq!(wire.answer().error(), "42P02 there is no parameter $65536");
    let error = wire.query(&" ".repeat(100_000_000)).error();
    assert!(error.starts_with("54000 a message of 100000006 bytes is over the limit"), "{error}");
    assert_eq!(wire.query("DROP TABLE big"), ok);
}

fn roles(cluster: &Cluster) {
    cluster.sql(0, "CREATE ROLE joe LOGIN").unwrap();
    let joe = format!("postgresql://joe@127.0.0.1:{}/meridian", cluster.ports[0].sql);
    for statement in ["CHAOS HEAL", "CHAOS CRASH 'n1'", "SHOW NODES", "SHOW RANGES", "SHOW CHAOS"] {
        let says = ["is for superusers"];
        expect(&["sql", &joe, "-c", statement], cluster.dir.path(), 1, &says);
    }
    for (statement, why) in [
        ("CHAOS CRASH 'n7'", "there is no region or node \"n7\""),
        ("CHAOS PARTITION 'mars' FROM 'us-east' FOR '1s'", "there is no region or node \"mars\""),
        ("CHAOS CLOCK 'n3' SKEW '1s' FOR '9999s'", "a fault lasts up to 3600 seconds"),
    ] {
        let error = cluster.sql(0, statement).unwrap_err();
        assert!(error.contains(why), "{statement}: {error}");
    }
}

fn table_modes(cluster: &Cluster) {
    let sql = |statement: &str| cluster.sql(0, statement);
    sql("CREATE TABLE strong (id int PRIMARY KEY)").unwrap();
    sql("CREATE TABLE loose (id int PRIMARY KEY, n int) WITH (consistency = 'available')").unwrap();
    for (columns, mode, why) in [
        ("id int PRIMARY KEY", "eventual", "It is 'strong' or 'available'"),
        ("id int PRIMARY KEY, u int UNIQUE", "available", "could both insert the value"),
        ("id int PRIMARY KEY, r int REFERENCES strong", "available", "between strong tables only"),
        ("id int PRIMARY KEY, r int REFERENCES loose", "strong", "between strong tables only"),
        ("id serial PRIMARY KEY", "available", "A sequence lives in one place"),
        ("id int", "available", "needs a primary key"),
        ("id int PRIMARY KEY, n COUNTER", "strong", "increments of a bigint are never lost"),
        ("n COUNTER PRIMARY KEY", "available", "cannot be part of a key"),
    ] {
        let statement = format!("CREATE TABLE refused ({columns}) WITH (consistency = '{mode}')");
        let error = sql(&statement).unwrap_err();
        assert!(error.contains(why), "{statement}: {error}");
    }
    for (statement, why) in [
        ("ALTER TABLE loose SET (consistency = 'strong')", "keeps the consistency"),
        ("ALTER TABLE strong SET (consistency = 'available')", "INSERT INTO .. SELECT"),
        ("CREATE UNIQUE INDEX ON loose (n)", "could both insert the value"),
        ("ALTER TABLE loose ADD FOREIGN KEY (n) REFERENCES strong", "between strong tables only"),
        ("ALTER TABLE strong ADD COLUMN c COUNTER", "consistency = 'available'"),
    ] {
        let error = sql(statement).unwrap_err();
        assert!(error.contains(why), "{statement}: {error}");
    }
}

#[test]
fn a_data_directory_that_is_not_this_nodes_is_refused() {
    let _alone = alone();
    let mut cluster = Cluster::start("");
    let at = cluster.dir.path().to_path_buf();
    let refused = |cluster: &Cluster, place: usize, data: &Path, says: &[&str]| {
        let before = fs::read(data.join("MERIDIAN")).ok();
        let start = now();
        let (code, said) = run(&cluster.start_arguments(place, data, Ports::free()), &at);
        assert_eq!(code, Some(1), "{said}");
        for part in says {
            assert!(said.contains(part), "does not say `{part}`: {said}");
        }
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(fs::read(data.join("MERIDIAN")).ok(), before, "a refused start counts as none");
    };

    refused(&cluster, 1, &cluster.data(1), &["is in use by another process"]);
    let mine = at.join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.tex"), "years of work").unwrap();
    refused(&cluster, 1, &mine, &["is not a Meridian data directory", "thesis.tex"]);
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1, "nothing was written among them");
    let (version, cut) = (at.join("version"), at.join("cut"));
    let identity = fs::read_to_string(cluster.data(1).join("MERIDIAN")).unwrap();
    for (data, text) in [
        (&version, identity.replace("format 1\n", "format 99\n")),
        (&cut, identity[..identity.len() / 2].to_string()),
    ] {
        fs::create_dir_all(data.join("state")).unwrap();
        fs::write(data.join("MERIDIAN"), text).unwrap();
    }
    refused(&cluster, 1, &version, &["data format 99", "use the version that wrote it"]);
    refused(&cluster, 1, &cut, &["MERIDIAN", "or is damaged"]);

    // As if the machine had stood still while somebody copied its disk.
    let copy = at.join("copy");
    let copy_now = |cluster: &Cluster| {
        let _ = fs::remove_dir_all(&copy);
        cluster.signal(1, "STOP");
        let copied = Command::new("cp").arg("-r").arg(cluster.data(1)).arg(&copy).status().unwrap();
        assert!(copied.success());
    };
    copy_now(&cluster);
    cluster.signal(1, "CONT");
    refused(&cluster, 1, &copy, &["n2 runs already at 127.0.0.1:", "is a copy"]);
    for _ in 0..2 {
        cluster.kill(1);
        let free = || TcpListener::bind(("127.0.0.1", cluster.ports[1].sql)).is_ok();
        assert!(wait_until(Duration::from_secs(5), free).is_some());
        cluster.start_node(1);
        cluster.wait_ready();
    }
    cluster.kill(1);
    refused(&cluster, 1, &copy, &["is an older copy of n2's data directory", "start number"]);

    // Another cluster's directory, started with ours to join.
    let founder = at.join("founder");
    let ports = Ports::free();
    let mut arguments = cluster.start_arguments(1, &founder, ports);
    let join = arguments.iter().position(|argument| argument == "--join").unwrap();
    arguments.drain(join..join + 2);
    arguments.retain(|argument| argument != "--allow-chaos");
    let mut other = Command::new(crate::harness::MERIDIAN)
        .args(&arguments)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_founded = wait_until(Duration::from_secs(20), || is_ready(ports.http, None)).is_some();
    let faults =
        ["CHAOS CRASH 'n1'", "CHAOS PARTITION 'eu-west' FROM 'eu-west' FOR '1s'", "CHAOS HEAL"];
    let answers = faults.map(|statement| psql(ports.sql, statement));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(is_founded);
    for answer in answers {
        assert!(answer.unwrap_err().contains("was not started with chaos allowed (--allow-chaos)"));
    }
    refused(&cluster, 1, &founder, &["(--join) belongs to another cluster"]);

    // A node that stood still finds its id taken when it wakes.
    cluster.start_node(1);
    cluster.wait_ready();
    copy_now(&cluster);
    let ports = Ports::free();
    let mut twin = Command::new(crate::harness::MERIDIAN)
        .args(cluster.start_arguments(1, &copy, ports))
        .stderr(fs::File::create(at.join("copy.log")).unwrap())
        .spawn()
        .unwrap();
    let serves = wait_until(Duration::from_secs(30), || is_ready(ports.http, None)).is_some();
    cluster.signal(1, "CONT");
    let ended = cluster.wait_end(1, Duration::from_secs(30));
    let said = cluster.log(1);
    twin.kill().unwrap();
    twin.wait().unwrap();
    assert!(serves, "{}", fs::read_to_string(at.join("copy.log")).unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{said}");
    assert!(said.contains("another process carries our node id: n2 was started at"), "{said}");
}

#[test]
fn a_clock_ten_minutes_off_harms_nobody_else() {
    let _alone = alone();
    let cluster = Cluster::start("");
    cluster.sql(0, "CREATE TABLE ticks (id int PRIMARY KEY, n int)").unwrap();
    cluster.sql(0, "INSERT INTO ticks VALUES (1, 0)").unwrap();
    for skew in ["10m", "-10m"] {
        cluster.sql(0, &format!("CHAOS CLOCK 'n3' SKEW '{skew}' FOR '60s'")).unwrap();
        let state = |place: usize| {
            let clocks = cluster.sql(place, "SHOW CLOCKS").unwrap_or_default();
            clocks.lines().find(|line| line.starts_with("n3|")).unwrap_or("").to_string()
        };
        let fenced = || state(2).contains("fenced") && state(0).contains("fenced");
        assert!(wait_until(Duration::from_secs(5), fenced).is_some(), "{}", state(2));
        let start = now();
        let refused = cluster.sql(2, "UPDATE ticks SET n = n + 1").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(refused.contains("This node has fenced itself: clock"), "{refused}");
        // The first write may have to wait until n3's leases are taken over.
        cluster.sql(0, "UPDATE ticks SET n = n + 1").unwrap();
        // The others' clocks have not followed: a commit waits for its timestamp, so it would take minutes.
        for place in 0..2 {
            let start = now();
            cluster.sql(place, "UPDATE ticks SET n = n + 1").unwrap();
            assert!(start.elapsed() < Duration::from_secs(3), "{skew}: {:?}", start.elapsed());
            let jumped =
                "SELECT abs(extract(epoch FROM now()) - extract(epoch FROM clock_timestamp())) < 5";
            assert_eq!(cluster.sql(place, jumped).unwrap(), "t");
        }
        cluster.sql(0, "CHAOS HEAL").unwrap();
        let back = || state(2).ends_with("ok") && state(0).ends_with("ok");
        assert!(wait_until(Duration::from_secs(20), back).is_some(), "{}", state(2));
        cluster.sql(2, "UPDATE ticks SET n = n + 1").unwrap();
    }
    assert_eq!(cluster.sql(1, "SELECT n FROM ticks").unwrap(), "8");
}

/// A small file system at a place; unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Option<SmallDisk> {
        let size = format!("size={mib}m");
        let options = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_path_buf()))
    }

    fn enlarge(&self, mib: u32) {
        let size = format!("remount,size={mib}m");
        let done = Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node on it may still be running, if the test has failed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_its_node_alone_and_loses_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::start("");
    cluster.sql(0, "CREATE TABLE fill (id int PRIMARY KEY, v text)").unwrap();
    cluster.terminate(2, "TERM");
    let (data, aside) = (cluster.data(2), cluster.dir.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    fs::create_dir(&data).unwrap();
    let Some(disk) = SmallDisk::mount(&data, 64) else {
        eprintln!("SKIPPED: this machine does not let this user mount a tmpfs");
        return;
    };
    let copied = Command::new("cp").args(["-r", "."]).arg(&data).current_dir(&aside).status();
    assert!(copied.unwrap().success());
    cluster.start_node(2);
    cluster.wait_ready();
    let mut rows = 0;
    while cluster.wait_end(2, Duration::ZERO).is_none() {
        assert!(rows < 300, "300 half megabytes do not fill 64");
        let random =
            "SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 14000)";
        cluster.sql(0, &format!("INSERT INTO fill VALUES ({rows}, ({random}))")).unwrap();
        rows += 1;
    }
    let said = cluster.log(2);
    assert!(said.contains("meridian: disk full") && said.contains("No space left"), "{said}");
    println!("stopped after {rows} rows: {}", said.lines().last().unwrap());
    cluster.sql(1, &format!("INSERT INTO fill VALUES ({rows}, 'the others go on')")).unwrap();
    rows += 1;
    let sums = "SELECT count(*), md5(string_agg(v, '' ORDER BY id)) FROM fill";
    let whole = cluster.sql(0, sums).unwrap();
    assert!(whole.starts_with(&format!("{rows}|")), "{whole}");

    disk.enlarge(400);
    cluster.start_node(2);
    cluster.wait_ready();
    assert_eq!(cluster.sql(2, sums).unwrap(), whole, "{}", REGIONS[2]);
    cluster.kill(0);
    let alone = wait_until(Duration::from_secs(20), || cluster.sql(2, sums).as_ref() == Ok(&whole));
    assert!(alone.is_some(), "without n1 it holds everything, too");
    cluster.kill(2);
    drop(disk);
}
