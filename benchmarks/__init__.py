"""Speed against the peers: both sides in one process run, same data, same start, same answer."""
