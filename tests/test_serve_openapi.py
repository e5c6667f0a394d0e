"""What OpenAPI says of the API holds, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from tests.support.bench import PipelineBench
from tests.support.served import Served, serving
from tests.support.threads import PATIENCE, eventually

from run_task import RwLock, TimeSeries, TimeUnit, task
from run_task.aggregates import count, mean
from run_task.serve._catalog import OPERATIONS

TOKEN = "0123456789abcdef-token"

ENDLESS = ("live", "stream")
"""What is answered for as long as it is asked for."""


@task
def end_of(data: object, start: int, end: int) -> int:
    if end % 2:
        raise ValueError(str(end))
    return end


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN_TASK_TOKEN", TOKEN)
        bench = PipelineBench([end_of])
        bench.stage("a", RwLock[object](object()))
        series = TimeSeries({"id": str, "price": float}, TimeUnit.SECONDS, key="id")
        series.append(0, id="x", price=1.5)
        bench.pipeline.stage("by", [count(), mean("price")], series, "1s", by="id")
        with serving(bench.pipeline) as made:
            bench.advance(2)
            eventually(lambda: made.get("/api/keys?stage=by")["count"] == 1)
            yield made


_LITERALS = st.one_of(
    st.integers().map(str), st.text(alphabet="ab c", max_size=5).map(json.dumps), st.just("null")
)
_COMPARISONS = st.builds(
    "{} {} {}".format,
    st.sampled_from(["count", "price_mean", "no such"]),
    st.sampled_from(["=", "!="]),
    _LITERALS,
)


@pytest.fixture(scope="module", autouse=True)
def condition() -> None:
    """What has the form of a condition, which no pattern says."""
    schemathesis.openapi.format(
        "condition", st.lists(_COMPARISONS, min_size=1, max_size=3).map(" and ".join)
    )


@pytest.mark.parametrize(
    "operation",
    [each for each in OPERATIONS if each.name not in ENDLESS],
    ids=lambda each: each.name,
)
def test_what_is_answered_is_what_openapi_says(operation: Any, served: Served) -> None:
    schema: Any = schemathesis.openapi.from_url(f"{served.service.url}api/openapi.json")
    described = schema[operation.path][operation.method]
    cases = st.one_of(
        described.as_strategy(), described.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    )

    @seed(1)
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=cases, stage=st.sampled_from(["a", "by", None]))
    def ask(case: Any, stage: str | None) -> None:
        if stage is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
            for place, name in ((case.query, "stage"), (case.path_parameters, "name")):
                if place and name in place:
                    place[name] = stage
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE)

    ask()


def test_the_api_is_described_whole(served: Served) -> None:
    told = served.get("/api/openapi.json")
    assert told["openapi"] == "3.1.0"
    said = {(path, method) for path, of_path in told["paths"].items() for method in of_path}
    assert said == {(each.path, each.method.lower()) for each in OPERATIONS}
