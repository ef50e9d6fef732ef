from aejax.config import Config, Data, Prepare
from aejax.models import Autoencoder
from aejax.models.bottlenecks import Plain
from aejax.models.coders import Dense
from aejax.models.likelihood import Gaussian
from aejax.models.penalties import L1
from aejax.optimizer import Adam, Cosine


def get_config() -> Config:
    return Config(
        model=Autoencoder(
            coder=Dense(hidden=(), bias=False, tied=True),
            latent_dim=256,
            bottleneck=Plain(activation="linear"),
            likelihood=Gaussian(deviation=0.02),
            penalty=L1(weight=20.0),
        ),
        data=Data(prepare=Prepare(scale=False)),
        optimizer=Adam(learning_rate=3e-3, schedule=Cosine()),
        batch_size=512,
        duration="60 epochs",
    )
