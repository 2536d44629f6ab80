"""`CBC`: PuLP's CBC with a watchdog, for it may run four times its own limit."""

from __future__ import annotations

import subprocess
from typing import Any

import pulp


class CBC(pulp.COIN_CMD):  # type: ignore[misc]  # pulp is untyped
    """Write the problem, run `cbc` as a child, read its answer; a child that overruns is killed and left no answer."""

    def __init__(self, *, patience_s: float, **settings: Any) -> None:  # noqa: ANN401 - PuLP's own settings
        super().__init__(msg=False, path=pulp.apis.PULP_CBC_CMD.pulp_cbc_path, **settings)
        self.patience_s = patience_s
        self.rows: list[pulp.LpConstraint] = []
        self.child: subprocess.Popen[bytes] | None = None

    def cancel(self) -> None:
        """Kill the child."""
        if self.child is not None:
            self.child.kill()

    def solve_CBC(self, lp: pulp.LpProblem, use_mps: bool = True) -> int:  # noqa: N802, FBT001, FBT002 - PuLP's name
        """Solve by way of an MPS file in PuLP's temporary folder. Raises PulpSolverError where the child died."""
        del use_mps
        mps, solution = self.create_tmp_files(lp.name, "mps", "sol")
        try:
            variables, names, rows, _ = lp.writeMPS(mps, rename=1)
            options = [word for option in self.getOptions() for word in f"-{option}".split()]
            action = "-solve" if self.mip else "-initialSolve"
            limit = ["-sec", str(self.timeLimit)]
            command = [self.path, mps, *limit, *options, action, "-printingOptions", "all", "-solution", solution]
            self._run(command)
            try:
                status, values, reduced, duals, slacks, sol_status = self.readsol_MPS(
                    solution, lp, variables, names, rows
                )
            except (OSError, IndexError, ValueError) as error:
                msg = f"cbc left no readable answer: {error}"
                raise pulp.PulpSolverError(msg) from error
            lp.assignVarsVals(values)
            lp.assignVarsDj(reduced)
            lp.assignConsPi(duals)
            lp.assignConsSlack(slacks, activity=True)
            lp.assignStatus(status, sol_status)
            return int(status)
        finally:
            self.delete_tmp_files(mps, solution)

    def _run(self, command: list[str]) -> None:
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet, stdin=quiet) as self.child:  # noqa: S603 - cbc
            try:
                code = self.child.wait(self.patience_s)
            except subprocess.TimeoutExpired as error:
                self.child.kill()
                msg = f"cbc ran past {self.patience_s:g} s and was killed"
                raise pulp.PulpSolverError(msg) from error
        if code != 0:
            msg = f"cbc died with code {code}"
            raise pulp.PulpSolverError(msg)
