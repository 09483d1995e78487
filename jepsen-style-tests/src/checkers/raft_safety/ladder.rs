//! Follows one log on a disk from probe to probe, reading only what is new.

use super::probe::Rung;

/// What was last read of one replica's log.
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    /// Without gaps.
    rungs: Vec<Rung>,
    start: u64,
}

impl Ladder {
    /// Reads what has changed in a log that now has the entries of `start..end`. Answers where the
    /// change begins and all entries from there on, as a probe wants them.
    ///
    /// A log changes at its end only: whatever is rewritten gets another term, so the first entry
    /// from the back that is still the same ends the search.
    pub fn follow(
        &mut self,
        (start, end): (u64, u64),
        mut read: impl FnMut(u64) -> Option<Rung>,
    ) -> (u64, Vec<Rung>) {
        let purged = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.rungs.drain(..purged.min(self.rungs.len()));
        if self.rungs.is_empty() || start < self.start {
            self.rungs.clear();
        }
        self.start = start;
        while let Some(last) = self.rungs.last() {
            if last.id.index < end && read(last.id.index) == Some(*last) {
                break;
            }
            self.rungs.pop();
        }
        let changed = self.rungs.last().map_or(start, |last| last.id.index + 1);
        // What can't be read ends the log, as far as can be told.
        let new: Vec<Rung> = (changed..end).map_while(read).collect();
        self.rungs.extend(&new);
        (changed, new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::LogId;
    use super::*;

    fn log(terms: &[u64]) -> Vec<Rung> {
        let rungs = terms.iter().zip(0_u64..);
        rungs.map(|(term, index)| Rung { id: LogId { term: *term, index }, hash: *term }).collect()
    }

    fn follow(ladder: &mut Ladder, start: u64, terms: &[u64]) -> (u64, usize, usize) {
        let (log, mut reads) = (log(terms), 0);
        let end = u64::try_from(log.len()).expect("short");
        let (changed, new) = ladder.follow((start, end), |index| {
            reads += 1;
            log.get(usize::try_from(index).expect("short")).copied()
        });
        (changed, new.len(), reads)
    }

    #[test]
    fn only_what_is_new_is_read() {
        let mut ladder = Ladder::default();
        assert_eq!(follow(&mut ladder, 0, &[1, 1, 2]), (0, 3, 3));
        assert_eq!(follow(&mut ladder, 0, &[1, 1, 2]), (3, 0, 1));
        assert_eq!(follow(&mut ladder, 0, &[1, 1, 2, 2]), (3, 1, 2));
    }

    #[test]
    fn a_suffix_that_was_replaced_is_read_again() {
        let mut ladder = Ladder::default();
        follow(&mut ladder, 0, &[1, 1, 2, 2]);
        assert_eq!(follow(&mut ladder, 0, &[1, 1, 3]), (2, 1, 3));
        assert_eq!(follow(&mut ladder, 0, &[1]), (1, 0, 1));
    }

    #[test]
    fn a_purged_prefix_is_let_go() {
        let mut ladder = Ladder::default();
        follow(&mut ladder, 0, &[1, 1, 2]);
        assert_eq!(follow(&mut ladder, 2, &[1, 1, 2, 2]), (3, 1, 2));
        assert_eq!(follow(&mut ladder, 4, &[1, 1, 2, 2, 2]), (4, 1, 1));
    }
}
