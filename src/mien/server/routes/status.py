"""What is loaded, what a key may do, and how the server is."""

from importlib.metadata import version

from fastapi import Response

from mien import cards
from mien.classification import Head
from mien.gallery import MIN_QUALITY
from mien.inference import preferred_precisions
from mien.server import messages as m
from mien.server.routes.access import Reader, Serving, new_router
from mien.weights import choose as choose_file
from mien.weights import locate

router = new_router()


@router.get("/v1/models")
async def models(key: Reader, service: Serving) -> m.Models:
    """What is loaded and what was measured of it, and every network that is known."""
    bundle = service.recognizer.bundle
    points = bundle.operating_points
    return m.Models(
        version=version("mien"),
        min_quality=MIN_QUALITY,
        loaded=m.LoadedModel(
            id=bundle.id,
            title=bundle.title,
            detector=bundle.detector.id,
            embedder=" + ".join(part.embedder.id for part in bundle.members or (bundle,)),
            contract=bundle.contract,
            protocol=points[0].protocol if points else None,
            operating_points=[
                m.Point(threshold=point.threshold, fmr=point.fmr, fnmr=point.fnmr)
                for point in points
            ],
            figures=dict(bundle.figures),
        ),
        heads=[_head(name, service.heads.find(name).head) for name in service.heads.names()],
        models=await service.stored(lambda: [_model(name) for name in cards.model_ids()]),
    )


@router.get("/v1/me")
async def me(key: Reader, service: Serving) -> m.Me:
    """What the key that was sent may do."""
    return m.Me(
        key=key.id, role=key.role, galleries=list(key.galleries), keys=service.keys is not None
    )


@router.get("/healthz", openapi_extra={"security": []})
async def healthz() -> m.Health:
    """The process answers."""
    return m.Health(status="ok")


@router.get("/readyz", openapi_extra={"security": []})
async def readyz(service: Serving) -> m.Health:
    """Models are loaded and galleries can be kept; raises the problem otherwise."""
    await service.stored(service.galleries.check)
    return m.Health(status="ok")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(key: Reader, service: Serving) -> Response:
    """Figures for Prometheus; sizes only of galleries that the key opens."""

    def sizes() -> dict[str, int]:
        found = {}
        for name in filter(key.opens, service.galleries.names()):
            with service.galleries.use(name) as opened:
                found[name] = len(opened)
        return found

    text = service.metrics.text(
        service.doors.inside, service.places.taken, await service.stored(sizes)
    )
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _head(name: str, head: Head) -> m.HeadRow:
    return m.HeadRow(
        head=name,
        kind=head.kind,
        labels=list(head.labels),
        models=[model.id for model in head.models],
        protocol=head.report.protocol,
        accuracy=head.report.accuracy,
        pictures=head.report.pictures,
    )


def _model(name: str) -> m.Model:
    card = cards.model_card(name)
    file = choose_file(card, preferred_precisions())
    return m.Model(
        id=card.id,
        title=card.title,
        task=card.task,
        licence=card.licence,
        commercial=card.commercial,
        training_data=card.training_data,
        cautions=card.cautions,
        bytes=file.bytes,
        sha256=file.sha256,
        present=locate(file) is not None,
    )
