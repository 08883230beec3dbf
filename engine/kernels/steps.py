"""What a step does: the numbers that the join writes, members carry out and metrics count.

A row is predicted; its prediction gets its first label, another label than the one that was counted, or none ever;
metrics are reported.
"""

PREDICT, LEARN, REVISE, GIVE_UP, REPORT = range(5)
