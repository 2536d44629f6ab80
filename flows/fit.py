"""The stage fit: a predictor for each shape that a search asks for, from its fingerprint and the fitted constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from catalog.fingerprints import Fingerprint, FingerprintKey
from catalog.fitted import Constants
from catalog.gpus import GPU
from catalog.predictors import Predictor
from flows.corrections import Corrections, Production
from flows.imports import Own
from flows.probe import Fingerprints, Pair, PairOf, shape_of
from planner.fit import fit
from planner.fit.measured import Known
from planner.strategies import Configuration
from probes.imported import completed


class Predictors:
    """Predictors by shape, each fitted once and remembered for the night; they are cheap to make and never stored."""

    def __init__(  # noqa: PLR0913 - what a night knows, by name
        self,
        fingerprints: Fingerprints,
        pair_of: PairOf,
        *,
        gpus: Mapping[str, GPU],
        constants: Constants,
        own: Own | None = None,
        corrections: Corrections | None = None,
        production: Production | None = None,
    ) -> None:
        """`own` finds what a user brought of a pair, which beats the tables; `corrections` are measured runs.

        `production` is what services measured; it comes on top.
        """
        self._fingerprints = fingerprints
        self._pair_of = pair_of
        self._gpus = gpus
        self._constants = constants
        self._own = own or Own()
        self._corrections = corrections
        self._production = production
        self._fitted: dict[Configuration, Predictor] = {}
        self._times: Known = {}
        self._learned: dict[tuple[Configuration, str | None], Predictor] = {}
        self.used: set[FingerprintKey] = set()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: times of operators are cheaper made than sent."""
        return {**vars(self), "_times": {}}

    def __call__(self, configuration: Configuration) -> Predictor:
        """Return the predictor of a shape; without a fingerprint it rests on the roofline, and is marked so."""
        return self._corrected(configuration, None)

    def of(self, intent: str) -> PredictorOf:
        """Predictors as what this very service measured corrects them too."""
        return lambda configuration: self._corrected(configuration, intent)

    @property
    def production(self) -> Production | None:
        """What production taught."""
        return self._production

    def _corrected(self, configuration: Configuration, intent: str | None) -> Predictor:
        if self._production is None:
            return self.unlearned(configuration)
        key = (shape_of(configuration), intent)
        if key not in self._learned:
            model = self._pair_of(key[0]).model
            self._learned[key] = self._production(self.unlearned(key[0]), model, key[0], intent=intent)
        return self._learned[key]

    def unlearned(self, configuration: Configuration) -> Predictor:
        """The predictor of a shape without what production taught: what the next comparison is made with."""
        shape = shape_of(configuration)
        if shape not in self._fitted:
            self._fitted[shape] = self._fit(shape)
        return self._fitted[shape]

    def records(self, configuration: Configuration) -> tuple[str, ...]:
        """Records of fingerprints that a predictor rests on: the tables' and what a user brought."""
        pair = self._pair_of(shape_of(configuration))
        found = (self._fingerprints.record(pair.key), self._own.record(pair))
        return tuple(record for record in found if record is not None)

    def corrected_by(self, configuration: Configuration) -> tuple[str, ...]:
        """Records of measured runs, and of production, that correct a predictor."""
        model = self._pair_of(shape_of(configuration)).model
        runs = () if self._corrections is None else self._corrections.records(model, shape_of(configuration))
        return runs if self._production is None else (*runs, self._production.record)

    def _fit(self, shape: Configuration) -> Predictor:
        pair = self._pair_of(shape)
        self.used.add(pair.key)
        found = fit(
            pair.model,
            pair.gpu,
            shape,
            fingerprint=self._fingerprint(pair),
            gpus=self._gpus,
            constants=self._constants,
            known=self._times,
        )
        return found if self._corrections is None else self._corrections(found, pair.model, shape)

    def _fingerprint(self, pair: Pair) -> Fingerprint | None:
        tables, own = self._fingerprints[pair.key], self._own(pair)
        return tables if own is None else own if tables is None else completed(own, tables)


PredictorOf = Callable[[Configuration], Predictor]
