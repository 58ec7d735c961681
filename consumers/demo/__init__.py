"""`driftline demo`: the whole loop on real data, with nothing to install or start beforehand."""
