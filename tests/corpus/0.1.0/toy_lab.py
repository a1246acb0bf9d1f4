"A lab of a user's, in one file: a ridge regression on a table, beside the mean."
from dataclasses import dataclass, field
import numpy as np, pandas as pd, torch

from synthlab.experiments.lab import Headline, Lab, register_lab
from synthlab.experiments.parts import EstimatorPart
from synthlab.experiments.settings import ExperimentConfig
from synthlab.models.registry import ConfigError
@dataclass
class ToyData:
    "The table: numbers in columns, the last one is asked."
    source: str = ""        # a CSV file; "" makes one
    rows: int = 200         # of the table that is made; the last quarter tests
    seed: int = 42          # of the table that is made

@dataclass
class ToyTraining:
    "What is learnt."
    penalty: float = 1.     # on the squares of the weights

@dataclass
class ToyConfig(ExperimentConfig):
    "A regression on a table."
    data: ToyData = field(default_factory=ToyData)
    training: ToyTraining = field(default_factory=ToyTraining)

class Ridge(torch.nn.Module):
    def __init__(self, width):
        super().__init__(); self.register_buffer("weight", torch.zeros(width, dtype=torch.float64))
    def fit(self, x, y, penalty):
        self.weight = torch.linalg.solve(x.T @ x + penalty*torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
        return self

@register_lab
class ToyLab(Lab):
    name, title, schema, evidence = "toy", "predict the last column of a table from the others", ToyConfig, ("rmse", "baselines")
    headline, words, knobs = Headline("rmse", "RMSE", ".3f"), {"alpha": "here it is training.penalty"}, dict(source="data.source", penalty="training.penalty")

    def load(self, config, about=None, quiet=False):
        if config.data.source: return self.table(config.data.source)
        x = np.random.default_rng(config.data.seed).normal(size=(config.data.rows, 4))
        return pd.DataFrame(x[:, :3], columns=["a", "b", "c"]).assign(y=x @ [1., -2., 0., .5])
    def table(self, source):
        try: return source if isinstance(source, pd.DataFrame) else pd.read_csv(source)
        except OSError as e: raise ConfigError(f"{source}: {e.strerror}") from None
    def parts(self, config, data):
        x, y = (torch.from_numpy(part.to_numpy()[:len(data)*3//4].copy()) for part in (data.iloc[:, :-1], data.iloc[:, -1]))
        about = dict(lab="toy", recipe=dict(penalty=config.training.penalty), columns=list(data)[:-1])
        return [EstimatorPart("ridge", lambda: Ridge(x.shape[1]).fit(x, y, config.training.penalty), lambda numbers: Ridge(len(numbers["weight"])), about)]
    def build(self, about, tensors): return Ridge(len(about["columns"]))
    def judge(self, experiment):
        data, cut = experiment.data, len(experiment.data)*3//4
        said, true = self.predict(experiment.main.model, dict(columns=list(data)[:-1]), data.iloc[cut:])["table"].prediction, data.iloc[cut:, -1]
        rmse, mean = (float(((guess - true)**2).mean()**.5) for guess in (said, data.iloc[:cut, -1].mean()))
        return dict(metrics=dict(rmse=rmse, baselines=dict(mean=mean), held_out=dict(row=list(true.index), loss=((said - true)**2).tolist())))
    def conclude(self, numbers): return f"The error is {numbers['rmse']:.3f}, that of the mean {numbers['baselines']['mean']:.3f}."
    def outcomes(self, result): return pd.Series(result["held_out"]["loss"], pd.Index(result["held_out"]["row"], name="row"))
    def predict(self, model, about, source, assets=None):
        x = self.table(source)[about["columns"]]
        return {"table": pd.DataFrame(dict(prediction=x.to_numpy() @ model.weight.numpy()), x.index)}
