import numpy as np
import pytest
from sklearn.base import clone

import featx
from featx.evaluation.few_shot.accuracy import episode_accuracies
from featx.evaluation.few_shot.episodes import draw_episodes
from featx.evaluation.folds import inseparable_rows
from featx.evaluation.heads import load_head


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_episodes_on_real_features_are_those_of_scikit_learn_and_more_shots_help(assets, tmp_path):
    extractor = f"squeezenet1_1:weights={assets / 'weights/squeezenet1_1.pth'}"
    features = featx.extract(assets / "datasets/pacs/photo", extractor, cache=tmp_path, precision="float32")
    together = inseparable_rows(features.groups, features.keys)
    means = {}
    for shots in (1, 5):
        episodes = draw_episodes(features.y, shots=shots, episodes=600, together=together)
        for name in ("centroid", "ridge"):
            head = load_head(name)
            found, _ = episode_accuracies(features.X, features.y, head, episodes)
            for number in range(0, 600, 60):
                support, query = episodes.support[number], episodes.query[number]
                plain = clone(head.pipeline).fit(features.X[support], features.y[support])
                assert found[number] == pytest.approx(
                    plain.score(features.X[query], features.y[query]), abs=1e-6
                )
            means[name, shots] = found.mean()
    assert means["centroid", 1] > 0.7
    assert means["centroid", 5] > 0.85
    assert means["ridge", 5] > 0.85
    drawn = draw_episodes(np.random.default_rng(0).permutation(features.y), shots=5, episodes=600)
    shuffled = np.random.default_rng(0).permutation(features.y)
    assert episode_accuracies(features.X, shuffled, load_head("centroid"), drawn)[0].mean() == pytest.approx(
        1 / 5, abs=0.03
    )
