"""Values for the arithmetic of protocols, with defaults of the tests' own."""

from ltpa.evaluation.fgsm import Attack
from ltpa.evaluation.pgd import IteratedAttack
from ltpa.evaluation.svm import Classifier


def one_step(epsilons=(1, 2, 4, 8, 16), loss="predicted", clip=True, round=False, batch_size=250):
    return Attack(epsilons, loss, clip, round, batch_size)


def many_steps(epsilons=(1, 2, 4, 8, 16), steps=10, step_size=0.25, random_start=True, seed=0):
    return IteratedAttack(epsilons, steps, step_size, random_start, seed)


def linear(folds=5, C=1.0, multiclass="ovr", solver="exact", loss="squared_hinge", seed=0):
    return Classifier(folds, C, multiclass, solver, loss, seed)
