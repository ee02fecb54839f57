//! The machine, and which of its cores do what.

use std::io;
use std::process::Command;

use super::super::machine;

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) measured: usize,
    pub(super) generator: usize,
    pub(super) upstream: usize,
}

impl Cores {
    /// What was asked for, and for the rest: the last usable core measured, the first for the generator, and another for the upstream, if there is one.
    pub(super) fn choose(
        measured: Option<usize>,
        generator: Option<usize>,
        upstream: Option<usize>,
        usable: &[usize],
    ) -> io::Result<Self> {
        if let Some(core) = [measured, generator, upstream].into_iter().flatten().find(|core| !usable.contains(core)) {
            return Err(io::Error::other(format!("core {core} may not be used")));
        }
        let pick = |taken: &[usize], mut from: Vec<usize>| {
            from.retain(|core| !taken.contains(core));
            from.first().copied()
        };
        let alone = || io::Error::other("two cores are needed: one is for the measured processes alone");
        let backwards = || usable.iter().rev().copied().collect::<Vec<_>>();
        let others: Vec<usize> = generator.into_iter().chain(upstream).collect();
        let measured = measured.or_else(|| pick(&others, backwards())).ok_or_else(alone)?;
        let taken: Vec<usize> = upstream.into_iter().chain([measured]).collect();
        let generator = generator.or_else(|| pick(&taken, usable.to_vec())).or(upstream).ok_or_else(alone)?;
        let upstream = upstream.or_else(|| pick(&[measured, generator], usable.to_vec())).unwrap_or(generator);
        if [generator, upstream].contains(&measured) {
            return Err(alone());
        }
        Ok(Self { measured, generator, upstream })
    }
}

/// What a record has to say of the machine.
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) cores: Cores,
    before: String,
    load_after: String,
}

impl Machine {
    pub(super) fn before(cores: Cores) -> Self {
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().map(|output| output.stdout);
        let date = String::from_utf8_lossy(&date.unwrap_or_default()).trim().to_owned();
        Self { date, cores, before: machine::describe(), load_after: String::new() }
    }

    pub(super) fn after(&mut self) {
        self.load_after = machine::load();
    }

    pub(super) fn describe(&self) -> String {
        let Cores { measured, generator, upstream } = self.cores;
        format!(
            "{} before and {} after; measured processes on core {measured}, generator on core {generator}, upstream on core {upstream}",
            self.before, self.load_after
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_core_is_shared_with_nobody() {
        let cores = |measured, generator, upstream| Cores { measured, generator, upstream };
        for (asked, usable, expected) in [
            ((None, None, None), &[0, 1][..], Some(cores(1, 0, 0))),
            ((None, None, None), &[0, 1, 2, 3], Some(cores(3, 0, 1))),
            ((None, None, None), &[4, 6, 9], Some(cores(9, 4, 6))),
            ((Some(0), None, None), &[0, 1], Some(cores(0, 1, 1))),
            ((None, Some(1), None), &[0, 1], Some(cores(0, 1, 1))),
            ((None, None, Some(1)), &[0, 1], Some(cores(0, 1, 1))),
            ((None, None, Some(3)), &[0, 1, 2, 3], Some(cores(2, 0, 3))),
            ((Some(1), Some(1), None), &[0, 1], None),
            ((Some(7), None, None), &[0, 1], None),
            ((None, None, None), &[0], None),
            ((None, None, None), &[], None),
        ] {
            let (measured, generator, upstream) = asked;
            let chosen = Cores::choose(measured, generator, upstream, usable);
            assert_eq!(chosen.ok(), expected, "{asked:?} {usable:?}");
        }
    }
}
