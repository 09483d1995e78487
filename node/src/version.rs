//! What this build is.

/// Version of the crate, and whether bugs were built in on purpose. A node of the bug zoo loses
/// data, so whoever looks at it must see what it is.
pub const VERSION: &str = if BUG_ZOO {
    concat!(env!("CARGO_PKG_VERSION"), "-bug-zoo")
} else {
    env!("CARGO_PKG_VERSION")
};

/// Whether this build has the planted bugs that the simulator must catch.
pub const BUG_ZOO: bool = cfg!(quipu_zoo);

#[cfg(test)]
mod tests {
    use node_core::ids::NodeVersion;

    #[test]
    fn the_version_is_one_that_a_cluster_takes() {
        for version in [super::VERSION, concat!(env!("CARGO_PKG_VERSION"), "-bug-zoo")] {
            assert!(NodeVersion::new(version).is_ok(), "{version}");
        }
    }
}
