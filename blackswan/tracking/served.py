"""The model that MLflow loads, and Databricks: code and a folder of safetensors, no pickle.

MLflow runs this file (models from code) where the model is loaded; contract.py says what it is
asked and what it answers.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from blackswan.errors import InputError
from blackswan.evaluation.model import Seen, Verdicts, load
from blackswan.tracking import manifest
from blackswan.tracking.contract import answer


class Served(PythonModel):
    """A complete model behind the contract."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model, once its files are those that were registered."""
        folder = Path(context.artifacts["detector"])
        manifest.check(folder)
        self.model = load(folder)
        # MLflow's server has a thread for every request: each decodes, and one scores for all, for
        # a model has one state, and torch starts threads of its own for each that asks it.
        self.scoring = ThreadPoolExecutor(1, "score")

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answer a request; one that cannot be ends in status 400 and one sentence."""
        try:
            return answer(self.model, model_input, params, self.score)
        except InputError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None

    def score(self, seen: Sequence[Seen]) -> Verdicts:
        """Have images judged when it is their turn."""
        return self.scoring.submit(self.model.score_seen, seen).result()


set_model(Served())
