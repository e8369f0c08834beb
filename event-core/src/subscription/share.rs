//! The share: how many partitions each instance of a group is to own.

/// How many of `partitions` the instance is to own, where these are there (sorted by name): as many
/// as every other, but for what cannot be divided, which the first ones get.
pub(super) fn share(partitions: usize, members: &[String], instance: &str) -> usize {
    // Who is not known yet to be there is, all the same.
    let place = members
        .iter()
        .position(|member| member == instance)
        .unwrap_or(members.len());
    let count = members.len().max(place + 1);
    partitions / count + usize::from(place < partitions % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_partitions_are_shared_evenly() {
        let members: Vec<String> = ["a", "b", "c"].map(String::from).into();
        for partitions in 0..20 {
            let shares: Vec<_> = members
                .iter()
                .map(|member| share(partitions, &members, member))
                .collect();
            assert_eq!(shares.iter().sum::<usize>(), partitions);
            let most = shares.iter().max().unwrap();
            assert!(shares.iter().all(|share| share + 1 >= *most));
        }
        assert_eq!(share(4, &[], "a"), 4);
        assert_eq!(share(4, &members, "new"), 1);
    }
}
