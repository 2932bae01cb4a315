"""Individual models that ship with amortnlme, one file each (installed as amortnlme.simulators)."""
