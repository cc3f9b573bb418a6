"""The faults F1 to F14 of docs/threats.md on real processes in network namespaces."""
