//! Value: a run of a script as one self-contained HTML page: a timeline of faults, throughput and latency per region, availability per
//! table mode, verdicts. No scripts, nothing loaded from anywhere.

use ::chaos::script::{Mode, Played, Regional, Script, Served, Span};
use std::fmt::Write;
use std::time::Duration;

/// Of the drawing.
const WIDTH: f64 = 960.0;
/// Where time begins in it, to the right of the names.
const LEFT: f64 = 110.0;
/// Of a fault's lane, and of a region's chart.
const LANE_HEIGHT: f64 = 18.0;
const CHART_HEIGHT: f64 = 56.0;
const GAP: f64 = 14.0;
/// Of a moment's name under the axis, at most.
const AXIS_LABEL_WIDTH: f64 = 40.0;

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1000px;color:#222}\
table{border-collapse:collapse;margin:.6em 0 1.6em}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}\
th{border-bottom:1px solid #999}td.n,th.n{text-align:right}.good{color:#17692b}.bad{color:#b3261e;font-weight:600}\
code,pre{font-family:ui-monospace,monospace}svg{font:11px system-ui,sans-serif}";

/// What a page tells beside what was played.
pub(super) struct Heading<'a> {
    /// The script's file.
    pub(super) name: &'a str,
    /// Its text.
    pub(super) text: &'a str,
    /// Where it was played.
    pub(super) world: &'a str,
}

/// The page.
pub(super) fn page(heading: &Heading<'_>, script: &Script, played: &Played) -> String {
    let good = played.is_good();
    let (class, verdict) = if good { ("good", "all held") } else { ("bad", "not everything held") };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}: {verdict}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{name}: <span class=\"{class}\">{verdict}</span></h1>\n\
         <p>{story}</p>\n<p>{world}, {nodes} nodes in {regions}, seed {seed}, {length:.1} s.</p>\n{timeline}\
         <h2>Lines</h2>\n{lines}<h2>Workloads</h2>\n{loads}<h2>Availability by table mode</h2>\n{regional}\
         <h2>Script</h2>\n<pre>{text}</pre>\n</body></html>\n",
        name = escape(heading.name),
        story = escape(&super::story(heading.text)),
        world = escape(heading.world),
        nodes = script.nodes,
        regions = escape(&script.regions.join(", ")),
        seed = script.seed,
        length = played.length.as_secs_f64(),
        timeline = timeline(script, played),
        lines = lines(played),
        loads = loads(played),
        regional = regional(&played.regional(script), played.length),
        text = escape(heading.text),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table; cells that begin with `=` are numbers, and stand to the right.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let row = |tag: &str, cells: Vec<String>| {
        let cell = |cell: String| match cell.strip_prefix('=') {
            Some(number) => format!("<{tag} class=\"n\">{number}</{tag}>"),
            None => format!("<{tag}>{cell}</{tag}>"),
        };
        format!("<tr>{}</tr>\n", cells.into_iter().map(cell).collect::<String>())
    };
    let head = row("th", head.iter().map(ToString::to_string).collect());
    let rows = rows.into_iter().map(|cells| row("td", cells)).collect::<String>();
    format!("<table>\n{head}{rows}</table>\n")
}

fn verdict<T: AsRef<str>>(verdict: &Result<T, String>) -> String {
    match verdict {
        Ok(holds) => format!("<span class=\"good\">{}</span>", escape(holds.as_ref())),
        Err(why) => format!("<span class=\"bad\">FAILED: {}</span>", escape(why)),
    }
}

fn lines(played: &Played) -> String {
    let row = |outcome: &::chaos::script::Outcome| {
        vec![
            format!("=line {}", outcome.place.line),
            format!("={:.1} s", outcome.began.as_secs_f64()),
            format!("={:.1} s", outcome.ended.as_secs_f64()),
            format!("<code>{}</code>", escape(&outcome.text)),
            verdict(&outcome.verdict.as_ref().map(|()| "ok").map_err(String::clone)),
        ]
    };
    let always = verdict(&played.verdict.as_ref().map(|()| "holds").map_err(String::clone));
    let mut rows: Vec<Vec<String>> = played.outcomes.iter().map(row).collect();
    rows.push(vec!["=".into(), "=".into(), "=".into(), "what must hold always".into(), always]);
    table(&["=", "=from", "=to", "", "verdict"], rows)
}

fn millis(duration: Duration) -> String {
    format!("={:.1}", duration.as_secs_f64() * 1000.0)
}

fn counts(served: &Served, length: Duration) -> Vec<String> {
    vec![
        format!("={}", served.ok),
        format!("={}", served.failed),
        format!("={}", served.unknown),
        format!("={:.1}", served.ok as f64 / length.as_secs_f64().max(0.001)),
        millis(served.p50),
        millis(served.p99),
    ]
}

fn loads(played: &Played) -> String {
    let head = [
        "workload", "tables", "=ok", "=failed", "=unknown", "=ok/s", "=p50 ms", "=p99 ms",
        "verdict",
    ];
    let row = |load: &::chaos::script::Loaded| {
        let mut cells = vec![load.kind.to_string(), Mode::of(load.kind).to_string()];
        cells.extend(counts(&Served::of(&load.acts), played.length));
        cells.push(verdict(&load.verdict));
        cells
    };
    table(&head, played.loads.iter().map(row))
}

fn regional(regional: &[Regional], length: Duration) -> String {
    let head = [
        "tables",
        "region",
        "=acknowledged",
        "=longest silence",
        "=ok",
        "=failed",
        "=unknown",
        "=ok/s",
        "=p50 ms",
        "=p99 ms",
    ];
    let row = |one: &Regional| {
        let percent = one.served.percent().map_or("-".to_string(), |n| format!("{n:.2} %"));
        let mut cells = vec![one.mode.to_string(), escape(&one.region), format!("={percent}")];
        cells.push(format!("={:.1} s", one.silence.as_secs_f64()));
        cells.extend(counts(&one.served, length));
        cells
    };
    table(&head, regional.iter().map(row))
}

/// Time as a place in the drawing.
struct Scale {
    length: f64,
}

impl Scale {
    fn x(&self, at: Duration) -> f64 {
        LEFT + (WIDTH - LEFT) * at.as_secs_f64() / self.length
    }
}

/// Faults above, then each region and mode: what was acknowledged in each second, and how long that took.
fn timeline(script: &Script, played: &Played) -> String {
    let scale = Scale { length: played.length.as_secs_f64().max(1.0) };
    let (spans, regional) = (played.spans(script), played.regional(script));
    let mut drawing = String::new();
    let mut y = 4.0;
    for span in &spans {
        lane(&mut drawing, span, &scale, y);
        y += LANE_HEIGHT;
    }
    y += GAP;
    let top = y;
    for one in &regional {
        throughput(&mut drawing, one, &scale, y);
        y += CHART_HEIGHT + GAP;
        latency(&mut drawing, one, &scale, y);
        y += CHART_HEIGHT + 2.0 * GAP;
    }
    let mut back = String::new();
    for span in spans.iter().filter(|span| span.to > span.from) {
        let (from, width) = (scale.x(span.from), scale.x(span.to) - scale.x(span.from));
        write!(back, "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#b3261e\" opacity=\"0.06\"/>\n", y - top)
            .expect("a String takes all");
    }
    axis(&mut drawing, &scale, y);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" width=\"100%\" role=\"img\" aria-label=\"timeline\">\n{back}{drawing}</svg>\n\
         <p>Green: acknowledged per second; red: refused; amber: nobody knows. Blue: median and 99th percentile of what was acknowledged.</p>\n",
        y + 20.0
    )
}

fn lane(drawing: &mut String, span: &Span, scale: &Scale, y: f64) {
    let from = scale.x(span.from);
    let width = (scale.x(span.to) - from).max(2.0);
    let text = escape(&span.text);
    // Words stand where there is room for them: behind the bar, before it, or on it.
    let behind = from + width + 4.0;
    let (x, anchor) = if behind < WIDTH * 0.75 {
        (behind, "start")
    } else if from > WIDTH * 0.45 {
        (from - 4.0, "end")
    } else {
        (from + 4.0, "start")
    };
    writeln!(
        drawing,
        "<g><title>{text}: {:.1} s to {:.1} s</title><rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"#d88a84\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text></g>",
        span.from.as_secs_f64(),
        span.to.as_secs_f64(),
        LANE_HEIGHT - 4.0,
        y + LANE_HEIGHT - 7.0
    )
    .expect("a String takes all");
}

fn label(drawing: &mut String, text: &str, note: &str, y: f64) {
    writeln!(
        drawing,
        "<text x=\"0\" y=\"{:.1}\">{}</text><text x=\"0\" y=\"{:.1}\" fill=\"#777\">{}</text>\
         <line x1=\"{LEFT}\" y1=\"{:.1}\" x2=\"{WIDTH}\" y2=\"{:.1}\" stroke=\"#bbb\"/>",
        y + 14.0,
        escape(text),
        y + 28.0,
        escape(note),
        y + CHART_HEIGHT,
        y + CHART_HEIGHT
    )
    .expect("a String takes all");
}

fn throughput(drawing: &mut String, one: &Regional, scale: &Scale, y: f64) {
    let most = one.seconds.iter().map(Served::count).max().unwrap_or(0).max(1);
    label(drawing, &format!("{}, {}", one.region, one.mode), &format!("up to {most}/s"), y);
    for (second, served) in (0..).map(Duration::from_secs).zip(&one.seconds) {
        let x = scale.x(second);
        let width = (scale.x(second + Duration::from_secs(1)).min(WIDTH) - x - 0.5).max(0.5);
        let mut foot = y + CHART_HEIGHT;
        for (count, colour) in
            [(served.ok, "#4c9a5f"), (served.failed, "#b3261e"), (served.unknown, "#d9a441")]
        {
            let height = CHART_HEIGHT * count as f64 / most as f64;
            foot -= height;
            if count > 0 {
                writeln!(drawing, "<rect x=\"{x:.1}\" y=\"{foot:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"><title>{count} at {} s</title></rect>", second.as_secs())
                    .expect("a String takes all");
            }
        }
    }
}

fn latency(drawing: &mut String, one: &Regional, scale: &Scale, y: f64) {
    let most = one.seconds.iter().map(|second| second.p99).max().unwrap_or_default();
    let most = most.max(Duration::from_millis(1));
    label(drawing, "latency", &format!("up to {} ms", most.as_millis()), y);
    let lines: [(fn(&Served) -> Duration, &str); 2] =
        [(|second| second.p99, "#9db7dd"), (|second| second.p50, "#2f5fa8")];
    for (pick, colour) in lines {
        let mut points: Vec<String> = Vec::new();
        let mut draw = |points: &mut Vec<String>| {
            // One second alone is a dot's width.
            if let [point] = points.as_slice() {
                points.push(point.clone());
            }
            if !points.is_empty() {
                writeln!(drawing, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-linecap=\"round\"/>", points.join(" "))
                    .expect("a String takes all");
            }
            points.clear();
        };
        for (second, served) in (0..).map(Duration::from_secs).zip(&one.seconds) {
            if served.ok == 0 {
                draw(&mut points);
                continue;
            }
            let height = CHART_HEIGHT * pick(served).as_secs_f64() / most.as_secs_f64();
            let x = scale.x(second + Duration::from_millis(500)).min(WIDTH);
            points.push(format!("{x:.1},{:.1}", y + CHART_HEIGHT - height));
        }
        draw(&mut points);
    }
}

fn axis(drawing: &mut String, scale: &Scale, y: f64) {
    let step = (scale.length / 12.0).ceil().max(1.0) as u64;
    for second in (0..=scale.length as u64).step_by(usize::try_from(step).unwrap_or(1)) {
        let x = scale.x(Duration::from_secs(second));
        // The last one would be cut off at the right edge.
        let anchor = if x + AXIS_LABEL_WIDTH > WIDTH { "end" } else { "start" };
        writeln!(
            drawing,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#777\">{second} s</text>",
            y + 12.0
        )
        .expect("a String takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::chaos::history::Ended;
    use ::chaos::script::{parse, run_in_sim};
    use ::chaos::workload::Kind;

    /// Numbers of a row of the page: the row whose first cells are these.
    fn numbers(page: &str, first: &[&str]) -> Vec<f64> {
        let first: String = first.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let row = page.lines().find(|line| line.contains(&first));
        let row = row.unwrap_or_else(|| panic!("no row begins with {first}"));
        let cells = row.split("<td class=\"n\">").skip(1);
        let text = |cell: &str| cell.split('<').next().unwrap_or_default().to_string();
        cells
            .map(|cell| text(cell).split(' ').next().unwrap_or_default().parse().unwrap())
            .collect()
    }

    #[test]
    fn the_figures_of_a_page_are_those_of_the_run() {
        let text = "# A story.\nnodes 3\nworkload bank, counter\nat 1s cut eu-west from us-east, ap-south\n\
             at 4s heal\nat 4s kill n1\nat 6s start n1\nend 8s\n";
        let script = parse(text).unwrap();
        let played = run_in_sim(&script).played;
        assert!(played.is_good(), "{played:?}");
        let heading = Heading { name: "a <test>", text, world: "the simulated world" };
        let page = page(&heading, &script, &played);
        for load in &played.loads {
            // Whoever reads the copies at the end is nobody's client.
            let clients = load.operations.iter().filter(|one| one.record.client < 1000);
            let (mut ok, mut failed, mut unknown) = (0, 0, 0);
            for operation in clients
                .filter(|one| ["transfer", "read", "add"].contains(&one.record.op.0.as_str()))
            {
                match operation.record.ended {
                    Ended::Ok(_) => ok += 1,
                    Ended::Fail => failed += 1,
                    Ended::Unknown => unknown += 1,
                }
            }
            let mode = Mode::of(load.kind);
            let row = numbers(&page, &[load.kind.name(), &mode.to_string()]);
            // The page counts answers. An account with too little on it is one, which a history tells as a transfer that failed.
            let poor = f64::from(failed) - row[1];
            assert!(poor == 0.0 || (load.kind == Kind::Bank && poor > 0.0), "{row:?}");
            assert_eq!(row[..3], [f64::from(ok) + poor, row[1], f64::from(unknown)]);
            assert!(ok > 50 && (row[3] - row[0] / played.length.as_secs_f64()).abs() < 0.06);
            let regions = script.regions.iter().map(|region| {
                let row = numbers(&page, &[&mode.to_string(), region]);
                let share = 100.0 * row[2] / (row[2] + row[3] + row[4]);
                assert!((row[0] - share).abs() < 0.006, "{row:?}");
                row[2]
            });
            assert_eq!(regions.sum::<f64>(), row[0], "each was asked in one region");
        }
        let spans = played.spans(&script);
        let seconds = |span: &Span| (span.from.as_secs(), span.to.as_secs());
        assert_eq!(spans.iter().map(seconds).collect::<Vec<_>>(), [(1, 4), (4, 6)]);
        assert!(page.contains("cut eu-west from us-east, ap-south: 1.0 s to 4.0 s"), "{page}");
        for outside in ["http:", "https:", "src=", "href=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}: it needs nothing else");
        }
        assert!(page.contains("a &lt;test&gt;: ") && page.contains("<p>A story.</p>"));
    }
}
