"""WISHES, OPTIONS, DECISIONS: pure functions from intents and facts to a plan.

Nothing here opens a file, reads a clock or the environment, or draws without a seed: the same wishes and facts give the
same bytes, a test needs no set-up, and a plan can be computed again years later. What is impossible is an answer, a
`Rejection` with its reason, never an exception. Reading order is import order: workload < strategies, intents < ops <
roofline, memory, power < fit < predict < queueing, simulate < goodput < candidates < placement < plan < explain, diff <
manifests, report.
"""
