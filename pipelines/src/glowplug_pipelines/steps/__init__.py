"""The steps, a module each: a typed function of the run and what was before it, to the step's outcome.

    dataset → train → champion → evaluate → profile → gate → register

Each reads the files of earlier steps from the run's folder and nothing from memory, so that any of them may be a
process, or a pod, of its own.
"""

DATASET = "dataset"
TRAIN = "train"
CHAMPION = "champion"
EVALUATE = "evaluate"
PROFILE = "profile"
GATE = "gate"
REGISTER = "register"
STEPS = (DATASET, TRAIN, CHAMPION, EVALUATE, PROFILE, GATE, REGISTER)
# Not one of a run's own: what asked for the run deploys.
DEPLOY = "deploy"
