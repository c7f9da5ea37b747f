"""Several folders of one kind (`staged_folder`) side by side: their arms, their seeds, what cannot be read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from mlipkit.errors import MlipkitError

from .staged_folder import StagedFolder

Folder = TypeVar("Folder", bound=StagedFolder)


class StagedArms(Generic[Folder]):
    """Folders of workflows as arms.

    Attributes:
        ORDER: arms as they stand, whatever the order of folders, so that each keeps its colour; others follow.
        problem: of the last `refresh`, "" without one.
    """

    ORDER: ClassVar[tuple[str, ...]]

    def __init__(self, workflows: Sequence[Folder]) -> None:
        self.workflows = list(workflows)
        self.problem = ""

    @property
    def arms(self) -> dict[str, list[Folder]]:
        """Arm -> its folders by seed."""
        place = {arm: k for k, arm in enumerate(self.ORDER)}
        found: dict[str, list[Folder]] = {}
        for one in sorted(self.workflows, key=lambda one: (place.get(one.arm, len(place)), one.name)):
            found.setdefault(one.arm, []).append(one)
        return found

    def label(self, one: Folder) -> str:
        """Arm and seed; with the folder where another one has the same."""
        alone = sum(other.name == one.name for other in self.workflows) == 1
        return one.name if alone else f"{one.name} ({one.folder.name})"

    def refresh(self) -> bool:
        """Read what is new in all folders; True when something was. `problem` names those that cannot be read."""
        news, problems = False, []
        for one in self.workflows:
            try:
                news = one.refresh() or news
            except (OSError, ValueError, MlipkitError) as error:
                problems.append(problem_of(error))
        self.problem = " · ".join(problems)
        return news


def problem_of(error: BaseException) -> str:
    """What went wrong, for people."""
    return str(error) if isinstance(error, MlipkitError) else f"{type(error).__name__}: {error}"
