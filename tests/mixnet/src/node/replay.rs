//! Memory of packets that have been here, bounded.

use std::collections::HashSet;

use nym_sphinx::REPLAY_TAG_SIZE;

type Tag = [u8; REPLAY_TAG_SIZE];

/// Two generations of tags: the younger grows, the elder is what it was when
/// it was full. At least the last `most` tags are remembered.
pub(super) struct Replay {
    most: usize,
    young: HashSet<Tag>,
    old: HashSet<Tag>,
}

impl Replay {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }

    /// Remembers `tag`; whether it is new.
    pub(super) fn insert(&mut self, tag: Tag) -> bool {
        if self.old.contains(&tag) || !self.young.insert(tag) {
            return false;
        }
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: u8) -> Tag {
        [number; REPLAY_TAG_SIZE]
    }

    #[test]
    fn a_tag_is_new_once() {
        let mut replay = Replay::new(10);
        assert!(replay.insert(tag(1)));
        assert!(!replay.insert(tag(1)));
    }

    #[test]
    fn the_last_tags_are_remembered_and_no_more_than_twice_as_many() {
        let mut replay = Replay::new(10);
        for number in 0..100 {
            assert!(replay.insert(tag(number)));
            assert!(replay.young.len() + replay.old.len() <= 20);
        }
        for number in 90..100 {
            assert!(!replay.insert(tag(number)), "forgot {number}");
        }
    }
}
