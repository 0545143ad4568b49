"""What faces look like: pose, age, gender, expression, liveness."""

from typing import Annotated

from fastapi import Query, Request

from mien.attributes import TASKS
from mien.server import messages as m
from mien.server.routes.access import Reader, Serving, new_router
from mien.server.routes.bodies import PICTURES, pictures_of
from mien.server.routes.pictures import facts, picture_of
from mien.server.uploads import Picture
from mien.types import Analysis, Category

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
    pose, age, liveness = seen.pose, seen.age, seen.liveness
    return m.AnalysedFace(
        **facts(seen),
        pose=m.HeadPose(
            yaw=round(pose.yaw, 1), pitch=round(pose.pitch, 1), roll=round(pose.roll, 1)
        ),
        age=age
        and m.ApparentAge(
            years=round(age.years, 1), low=round(age.low, 1), high=round(age.high, 1)
        ),
        gender=_likely(seen.gender),
        expression=_likely(seen.expression),
        ethnicity=_likely(seen.ethnicity),
        liveness=liveness
        and m.LivenessAnswer(
            live=liveness.live,
            score=round(liveness.score, 4),
            threshold=liveness.operating_point.threshold,
            apcer=liveness.operating_point.apcer,
            bpcer=liveness.operating_point.bpcer,
            protocol=liveness.operating_point.protocol,
        ),
    )


def _likely(found: Category | None) -> m.LikelyLabel | None:
    return found and m.LikelyLabel(
        label=found.label,
        probability=round(found.probability, 4),
        probabilities={label: round(share, 4) for label, share in found.probabilities.items()},
    )
