"""Speed against the ways others do it: both sides of every ratio are measured in one run, on one machine."""
