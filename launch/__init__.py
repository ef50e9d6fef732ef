"""Programs: parse flags, start the cluster, call the library."""
