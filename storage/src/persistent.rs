//! Value: an ordered map whose copies cost nothing. [`crate::memory`] needs a snapshot at every read and a durable
//! state beside the current one; a `BTreeMap` would be copied whole each time.
//!
//! Idea: a treap (a search tree by key that is a heap by priority) of shared nodes. A change copies only the nodes on
//! its path that somebody else still holds: `O(log n)` expected. The priority of a node is a hash of its key, so the
//! shape depends on the contents alone, and two runs of one seed build the same tree. (Seidel and Aragon, Randomized
//! Search Trees, 1996.)
//!
//! INVARIANT: keys ascend from left to right; no child has a greater priority than its parent.

use bytes::Bytes;
use std::cmp::Ordering;
use std::sync::Arc;

type Link = Option<Arc<Node>>;

#[derive(Clone, Debug)]
struct Node {
    key: Bytes,
    value: Bytes,
    priority: u64,
    left: Link,
    right: Link,
}

/// An ordered map of byte strings. `clone` is `O(1)`.
#[derive(Clone, Debug, Default)]
pub struct OrderedMap {
    root: Link,
    count: usize,
}

impl OrderedMap {
    /// How many keys.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let mut link = &self.root;
        while let Some(node) = link {
            match key.cmp(&node.key) {
                Ordering::Less => link = &node.left,
                Ordering::Greater => link = &node.right,
                Ordering::Equal => return Some(&node.value),
            }
        }
        None
    }

    /// Sets `key` to `value`.
    pub fn insert(&mut self, key: Bytes, value: Bytes) {
        if replace(&mut self.root, &key, &value) {
            return;
        }
        let priority = priority(&key);
        insert(&mut self.root, Node { key, value, priority, left: None, right: None });
        self.count += 1;
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        // Looking first keeps a removal of nothing from copying the path.
        if self.get(key).is_none() {
            return false;
        }
        remove(&mut self.root, key);
        self.count -= 1;
        true
    }

    /// Removes the keys from `start` (in) to `end` (out).
    pub fn remove_span(&mut self, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let (left, rest) = split(self.root.take(), start);
        let (middle, right) = split(rest, end);
        self.count -= count(&middle);
        self.root = merge(left, right);
    }

    /// The keys from `start` (in) to `end` (out), ascending. Holds this moment's tree, not the map.
    pub fn forward(&self, start: &[u8], end: &[u8]) -> Forward {
        let mut path = Vec::new();
        let mut link = &self.root;
        while let Some(node) = link {
            if node.key.as_ref() >= start {
                path.push(Arc::clone(node));
                link = &node.left;
            } else {
                link = &node.right;
            }
        }
        Forward { path, end: Bytes::copy_from_slice(end) }
    }

    /// The keys from `start` (in) to `end` (out), descending. Holds this moment's tree, not the map.
    pub fn reverse(&self, start: &[u8], end: &[u8]) -> Reverse {
        let mut path = Vec::new();
        let mut link = &self.root;
        while let Some(node) = link {
            if node.key.as_ref() < end {
                path.push(Arc::clone(node));
                link = &node.right;
            } else {
                link = &node.left;
            }
        }
        Reverse { path, start: Bytes::copy_from_slice(start) }
    }
}

/// Ascending walk; the stack holds the nodes still to be yielded on the way up.
#[derive(Debug)]
pub struct Forward {
    path: Vec<Arc<Node>>,
    end: Bytes,
}

impl Iterator for Forward {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        let node = self.path.pop()?;
        if node.key >= self.end {
            self.path.clear();
            return None;
        }
        let mut link = &node.right;
        while let Some(child) = link {
            self.path.push(Arc::clone(child));
            link = &child.left;
        }
        Some((node.key.clone(), node.value.clone()))
    }
}

/// Descending walk.
#[derive(Debug)]
pub struct Reverse {
    path: Vec<Arc<Node>>,
    start: Bytes,
}

impl Iterator for Reverse {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        let node = self.path.pop()?;
        if node.key < self.start {
            self.path.clear();
            return None;
        }
        let mut link = &node.left;
        while let Some(child) = link {
            self.path.push(Arc::clone(child));
            link = &child.right;
        }
        Some((node.key.clone(), node.value.clone()))
    }
}

/// FNV-1a with a finaliser, so that keys that differ in their last byte get unrelated priorities.
fn priority(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Sets the value if the key is there.
fn replace(link: &mut Link, key: &Bytes, value: &Bytes) -> bool {
    let Some(node) = link else { return false };
    let side = key.cmp(&node.key);
    // Probing before copying: a path is copied only when the key is known to be below.
    if side != Ordering::Equal {
        let below = if side == Ordering::Less { &node.left } else { &node.right };
        if !contains(below, key) {
            return false;
        }
    }
    set(link, key, value);
    true
}

fn contains(mut link: &Link, key: &[u8]) -> bool {
    while let Some(node) = link {
        match key.cmp(&node.key) {
            Ordering::Less => link = &node.left,
            Ordering::Greater => link = &node.right,
            Ordering::Equal => return true,
        }
    }
    false
}

fn set(mut link: &mut Link, key: &Bytes, value: &Bytes) {
    while let Some(node) = link {
        let node = Arc::make_mut(node);
        match key.cmp(&node.key) {
            Ordering::Less => link = &mut node.left,
            Ordering::Greater => link = &mut node.right,
            Ordering::Equal => {
                node.value = value.clone();
                return;
            }
        }
    }
}

fn insert(link: &mut Link, mut new: Node) {
    match link {
        Some(node) if node.priority >= new.priority => {
            let node = Arc::make_mut(node);
            let below = if new.key < node.key { &mut node.left } else { &mut node.right };
            insert(below, new);
        }
        _ => {
            let (left, right) = split(link.take(), &new.key);
            new.left = left;
            new.right = right;
            *link = Some(Arc::new(new));
        }
    }
}

fn remove(mut link: &mut Link, key: &[u8]) {
    while link.as_ref().is_some_and(|node| node.key != key) {
        let node = Arc::make_mut(link.as_mut().expect("checked by the loop"));
        link = if *key < *node.key { &mut node.left } else { &mut node.right };
    }
    if let Some(node) = link.take() {
        *link = merge(node.left.clone(), node.right.clone());
    }
}

/// The keys below `key`, and the others.
fn split(link: Link, key: &[u8]) -> (Link, Link) {
    let Some(mut shared) = link else { return (None, None) };
    let node = Arc::make_mut(&mut shared);
    if *node.key < *key {
        let (left, right) = split(node.right.take(), key);
        node.right = left;
        (Some(shared), right)
    } else {
        let (left, right) = split(node.left.take(), key);
        node.left = right;
        (left, Some(shared))
    }
}

/// Joins two trees, every key of `left` below every key of `right`.
fn merge(left: Link, right: Link) -> Link {
    match (left, right) {
        (None, link) | (link, None) => link,
        (Some(mut left), Some(mut right)) => {
            if left.priority >= right.priority {
                let node = Arc::make_mut(&mut left);
                node.right = merge(node.right.take(), Some(right));
                Some(left)
            } else {
                let node = Arc::make_mut(&mut right);
                node.left = merge(Some(left), node.left.take());
                Some(right)
            }
        }
    }
}

fn count(link: &Link) -> usize {
    let mut sum = 0;
    let mut stack: Vec<&Arc<Node>> = link.iter().collect();
    while let Some(node) = stack.pop() {
        sum += 1;
        stack.extend(node.left.iter().chain(node.right.iter()));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u8),
        Remove(u8),
        RemoveSpan(u8, u8),
        Snapshot,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any::<u8>(), any::<u8>()).prop_map(|(k, v)| Step::Insert(k, v)),
            3 => any::<u8>().prop_map(Step::Remove),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::RemoveSpan(a, b)),
            1 => Just(Step::Snapshot),
        ]
    }

    fn bytes(byte: u8) -> Bytes {
        Bytes::from(vec![byte])
    }

    type Twin = BTreeMap<Bytes, Bytes>;

    fn check(map: &OrderedMap, twin: &Twin, from: u8, to: u8) {
        assert_eq!(map.count(), twin.len());
        let (from, to) = (bytes(from), bytes(to));
        let expected: Vec<_> = twin
            .iter()
            .filter(|(key, _)| **key >= from && **key < to)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(map.forward(&from, &to).collect::<Vec<_>>(), expected);
        let mut reversed: Vec<_> = map.reverse(&from, &to).collect();
        reversed.reverse();
        assert_eq!(reversed, expected);
        for (key, value) in twin {
            assert_eq!(map.get(key), Some(value));
        }
    }

    proptest! {
        #[test]
        fn map_equals_btreemap_and_copies_do_not_change(
            steps in proptest::collection::vec(any_step(), 0..200), from: u8, to: u8,
        ) {
            let (mut map, mut twin) = (OrderedMap::default(), Twin::new());
            let mut copies = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        map.insert(bytes(key), bytes(value));
                        twin.insert(bytes(key), bytes(value));
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(map.remove(&bytes(key)), twin.remove(&bytes(key)).is_some());
                    }
                    Step::RemoveSpan(start, end) => {
                        map.remove_span(&[start], &[end]);
                        twin.retain(|key, _| !(*key >= bytes(start) && *key < bytes(end)));
                    }
                    Step::Snapshot => copies.push((map.clone(), twin.clone())),
                }
                check(&map, &twin, from, to);
            }
            for (map, twin) in copies {
                check(&map, &twin, from, to);
            }
        }
    }

    #[test]
    fn ascending_inserts_stay_shallow() {
        let mut map = OrderedMap::default();
        for number in 0..10_000u32 {
            map.insert(Bytes::copy_from_slice(&number.to_be_bytes()), Bytes::new());
        }
        fn depth(link: &Link) -> usize {
            link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        assert!(depth(&map.root) < 60, "depth {}", depth(&map.root));
    }
}
