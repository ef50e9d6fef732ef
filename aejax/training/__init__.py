"""Training: state, step, loop, optimizer, sharding, checkpoint; one short file each."""
