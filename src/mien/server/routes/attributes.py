"""What faces look like: pose, age, gender, expression, liveness."""

from typing import Annotated

from fastapi import Query, Request

from mien.attributes import TASKS
from mien.server import messages as m
from mien.server.routes.access import Reader, Serving, new_router
from mien.server.routes.bodies import PICTURES, pictures_of
from mien.server.routes.pictures import facts, picture_of
from mien.server.uploads import Picture
from mien.types import Age, Analysis, Category, Liveness

router = new_router()

Tasks = Annotated[
    str | None,
    Query(max_length=400, examples=["pose,liveness"],
          description=f"Which of {', '.join(TASKS)}, by commas. One that is named and has no model "
          "here is an error; without any, all whose models are here, except ethnicity."),
]  # fmt: skip


@router.post("/v1/analyze", openapi_extra=PICTURES)
async def analyze(
    request: Request, key: Reader, service: Serving, tasks: Tasks = None
) -> m.Analyses:
    """What the faces in pictures look like. Quality and pose need no model and are always there."""
    named = None if tasks is None else tuple(sorted({t.strip() for t in tasks.split(",")}))
    analyzer = await service.stored(lambda: service.analyzer(named))

    def work(picture: Picture) -> m.PictureOf[m.AnalysedFace]:
        image = service.read(picture)
        faces = service.detect(image)
        with service.metrics.stage("analyze"):
            return picture_of(image, list(map(_analysed, analyzer.analyze(image, faces))))

    pictures = await pictures_of(request, service)
    return m.Analyses(missing=dict(analyzer.missing), images=await service.each(work, pictures))


def _analysed(seen: Analysis) -> m.AnalysedFace:
    pose = seen.pose
    return m.AnalysedFace(
        **facts(seen),
        pose=m.HeadPose(
            yaw=round(pose.yaw, 1), pitch=round(pose.pitch, 1), roll=round(pose.roll, 1)
        ),
        age=_age(seen.age),
        gender=_likely(seen.gender),
        expression=_likely(seen.expression),
        ethnicity=_likely(seen.ethnicity),
        liveness=liveness_answer(seen.liveness),
    )


def _age(found: Age | None) -> m.ApparentAge | None:
    if found is None:
        return None
    return m.ApparentAge(
        years=round(found.years, 1), low=round(found.low, 1), high=round(found.high, 1)
    )


def _likely(found: Category | None) -> m.LikelyLabel | None:
    if found is None:
        return None
    return m.LikelyLabel(
        label=found.label,
        probability=round(found.probability, 4),
        probabilities={label: round(share, 4) for label, share in found.probabilities.items()},
    )


def liveness_answer(found: Liveness | None) -> m.LivenessAnswer | None:
    """Whether a face is alive, as a part of a reply."""
    if found is None:
        return None
    point = found.operating_point
    return m.LivenessAnswer(
        live=found.live,
        score=round(found.score, 4),
        threshold=point.threshold,
        apcer=point.apcer,
        bpcer=point.bpcer,
        protocol=point.protocol,
    )
