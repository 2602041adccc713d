"""What the reactor's thread knows of the file: topics, ends, the newest messages, who waits. Moved by reports only, after a transaction ended."""

from psubd.errors import TopicMissing
from psubd.model import Bounds, StoredTopic
from psubd.storage.sqlite.pages import Pages
from psubd.storage.sqlite.requests import Moved, Report, ShelfView
from psubd.storage.sqlite.tail import Tail
from psubd.storage.watches import Watches


class Place:
    """One partition: its log's number and bounds."""

    __slots__ = ("end", "first", "no")

    def __init__(self, no: int, first: int, end: int) -> None:
        self.no, self.first, self.end = no, first, end


class Shelf:
    """A topic and its partitions. Another object whenever the topic is another one."""

    __slots__ = ("places", "topic")

    def __init__(self, view: ShelfView) -> None:
        self.topic: StoredTopic = view.topic
        self.places = [Place(*log) for log in view.logs]

    def bounds(self) -> dict[int, Bounds]:
        return {partition: Bounds(place.first, place.end) for partition, place in enumerate(self.places)}


class Mirror:
    """On the reactor's thread only."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.pages = Pages()
        self.watches = Watches()
        self.shelves: dict[str, Shelf] = {}

    def shelf(self, topic: str) -> Shelf:
        """:raises TopicMissing:"""
        shelf = self.shelves.get(topic)
        if shelf is None:
            raise TopicMissing(f"topic {topic} is not in the storage")
        return shelf

    def place(self, topic: str, partition: int) -> Place:
        """:raises TopicMissing: also for the partition."""
        places = self.shelf(topic).places
        if not 0 <= partition < len(places):
            raise TopicMissing(f"topic {topic} has no partition {partition}; it has {len(places)}")
        return places[partition]

    def same(self, topic: str, uid: str) -> Shelf:
        """The topic, if it is still that one. :raises TopicMissing:"""
        shelf = self.shelf(topic)
        if shelf.topic.uid != uid:
            raise TopicMissing(f"topic {topic} was deleted and made again")
        return shelf

    def take(self, report: Report) -> None:
        """Know what the report says; nobody hears of it yet."""
        if report.all_shelves:
            self.tail.clear()
            self.pages.clear()
            for name in self.shelves.keys() - report.shelves.keys():
                report.shelves[name] = None
        for name, view in report.shelves.items():
            self._shelve(name, view)
        for moved in report.moved:
            self._move(moved)

    def tell(self, report: Report) -> None:
        """Fire those who wait for what the report says."""
        for moved in report.moved:
            self.watches.grew(moved.topic, moved.partition, moved.end)
        for name in report.shelves:
            self.watches.changed(name)

    def _shelve(self, name: str, view: ShelfView | None) -> None:
        before = self.shelves.pop(name, None)
        if view is not None:
            self.shelves[name] = Shelf(view)
        if before is not None and (view is None or view.topic.uid != before.topic.uid):
            self.tail.drop(name)
            for place in before.places:
                self.pages.drop(place.no)

    def _move(self, moved: Moved) -> None:
        shelf = self.shelves.get(moved.topic)
        if shelf is None or moved.partition >= len(shelf.places):
            return
        place = shelf.places[moved.partition]
        place.first, place.end = moved.first, moved.end
        if moved.thinned:
            self.tail.thin((moved.topic, moved.partition))
            self.pages.drop(place.no)
        if moved.messages:
            self.tail.extend((moved.topic, moved.partition), moved.messages, moved.payload)
