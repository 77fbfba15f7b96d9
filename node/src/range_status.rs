//! Value: a range's status as one line of text, as nodes tell each other for `SHOW RANGES`. Not a stored form: both ends are one version.

use replication::range::{NodeId, RangeDescriptor};
use replication::store::RangeStatus;
use sql::RangeSummary;
use storage::{Key, Span};

/// One line: `node|range|generation|leads|start|end|replicas`, keys in hexadecimal.
pub fn to_line(node: NodeId, status: &RangeStatus) -> String {
    let Some(RangeDescriptor { id, span, generation, peers, .. }) = &status.descriptor else {
        return String::new();
    };
    let replicas: Vec<String> = peers.iter().map(|peer| peer.node.0.to_string()).collect();
    let leads = u8::from(status.lease.is_some());
    format!(
        "{}|{}|{generation}|{leads}|{}|{}|{}",
        node.0,
        id.0,
        hex(&span.start),
        hex(&span.end),
        replicas.join(",")
    )
}

/// Puts the lines of all nodes together: the newest generation of each range, and who leads it.
pub fn summaries<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<RangeSummary> {
    let mut ranges: std::collections::BTreeMap<u64, (u64, RangeSummary)> =
        std::collections::BTreeMap::new();
    for line in lines {
        let Some((generation, mut summary)) = parse(line) else { continue };
        match ranges.get_mut(&summary.range) {
            Some((known, other)) => {
                let leaseholder = other.leaseholder.or(summary.leaseholder);
                if *known < generation {
                    summary.leaseholder = leaseholder;
                    (*known, *other) = (generation, summary);
                } else {
                    other.leaseholder = leaseholder;
                }
            }
            None => drop(ranges.insert(summary.range, (generation, summary))),
        }
    }
    let mut ranges: Vec<RangeSummary> = ranges.into_values().map(|(_, summary)| summary).collect();
    ranges.sort_by(|a, b| a.span.start.cmp(&b.span.start));
    ranges
}

fn parse(line: &str) -> Option<(u64, RangeSummary)> {
    let mut fields = line.split('|');
    let node = NodeId(fields.next()?.parse().ok()?);
    let range = fields.next()?.parse().ok()?;
    let generation = fields.next()?.parse().ok()?;
    let leads = fields.next()? == "1";
    let span = Span::new(unhex(fields.next()?)?, unhex(fields.next()?)?);
    let replicas: Option<Vec<NodeId>> =
        fields.next()?.split(',').map(|id| id.parse().ok().map(NodeId)).collect();
    let summary =
        RangeSummary { range, span, leaseholder: leads.then_some(node), replicas: replicas? };
    Some((generation, summary))
}

fn hex(key: &Key) -> String {
    key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Key> {
    let byte = |place: usize| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.map(Key::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generation_and_any_leader_win() {
        let lines = ["1|7|3|0|10|20|1,2", "2|7|4|0|10|18|1,2,3", "3|7|3|1|10|20|1,2", "garbage"];
        let ranges = summaries(lines);
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges[0].leaseholder, Some(NodeId(3)));
        assert_eq!(ranges[0].span, Span::new(Key::new(vec![0x10]), Key::new(vec![0x18])));
        assert_eq!(ranges[0].replicas.len(), 3);
    }
}
