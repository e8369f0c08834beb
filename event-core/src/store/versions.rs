use crate::recorded::Version;

/// In which order events are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    #[default]
    Forwards,
    /// The newest first.
    Backwards,
}

/// Which events of an aggregate to read.
///
/// ```
/// use event_core::Versions;
///
/// let first_ten = Versions::all().limit(10);
/// let since_three = Versions::from(3);
/// let newest = Versions::last(1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    from: Version,
    to: Version,
    limit: usize,
    direction: Direction,
}

impl Versions {
    /// All of them, the oldest first.
    pub fn all() -> Self {
        Self::from(1)
    }

    /// Those of this version and above.
    pub fn from(version: Version) -> Self {
        Self {
            from: version.max(1),
            to: Version::MAX,
            limit: usize::MAX,
            direction: Direction::Forwards,
        }
    }

    /// The newest `count`, the newest first.
    pub fn last(count: usize) -> Self {
        Self::all().backwards().limit(count)
    }

    /// Not those above this version.
    pub fn to(mut self, version: Version) -> Self {
        self.to = version;
        self
    }

    /// At most so many.
    pub fn limit(mut self, count: usize) -> Self {
        self.limit = count;
        self
    }

    /// The newest first.
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }

    /// The order.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The lowest and the highest version to read of an aggregate that has reached `highest`, with
    /// the limit worked in; `None` where that is nothing.
    pub fn within(&self, highest: Version) -> Option<(Version, Version)> {
        let (mut low, mut high) = (self.from, self.to.min(highest));
        if low > high || self.limit == 0 {
            return None;
        }
        let room = u64::try_from(self.limit).unwrap_or(u64::MAX);
        match self.direction {
            Direction::Forwards => high = high.min(low.saturating_add(room - 1)),
            Direction::Backwards => low = low.max(high.saturating_sub(room - 1)),
        }
        Some((low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_limit_meet() {
        assert_eq!(Versions::all().within(5), Some((1, 5)));
        assert_eq!(Versions::from(0).within(5), Some((1, 5)));
        assert_eq!(Versions::from(3).to(3).within(5), Some((3, 3)));
        assert_eq!(Versions::from(4).to(3).within(5), None);
        assert_eq!(Versions::from(6).within(5), None);
        assert_eq!(Versions::all().limit(0).within(5), None);
        assert_eq!(Versions::from(2).limit(2).within(5), Some((2, 3)));
        assert_eq!(Versions::last(2).within(5), Some((4, 5)));
        assert_eq!(Versions::last(2).to(3).within(5), Some((2, 3)));
        assert_eq!(Versions::all().within(0), None);
    }
}
