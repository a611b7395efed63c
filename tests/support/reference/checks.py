"""Reference model of checks: what each run of one finds, and what may not enter the log."""

from uuid import UUID

EVENTS = """(
    SELECT id, event_id, dataset, extra, source, run, node, map_index FROM event
    UNION ALL
    SELECT id, event_id, dataset, extra, source, run, node, map_index FROM held_event
)"""
"""All events: those in the log, those that are held, those that were discarded."""

RELEASES = """
CREATE TABLE checked (uri text);
CREATE FUNCTION check_release() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM held_event WHERE event_id = NEW.event_id) THEN
        INSERT INTO violation VALUES (format('event %s is in the log, and held', NEW.event_id));
    END IF;
    IF EXISTS (SELECT FROM checked JOIN dataset USING (uri) WHERE dataset.id = NEW.dataset)
       AND NOT EXISTS (SELECT FROM check_result
                       WHERE event_id = NEW.event_id AND blocking AND position = NEW.id) THEN
        INSERT INTO violation VALUES (format('event %s was not checked', NEW.event_id));
    END IF;
    INSERT INTO violation
    SELECT format('event %s was released: %s', NEW.event_id, r) FROM check_result AS r
    WHERE r.event_id = NEW.event_id AND r.blocking
      AND (r.holding OR r.position IS DISTINCT FROM NEW.id
           OR r.outcome <> 'passed' AND r.released_by IS NULL
              AND NOT (r.outcome = 'failed' AND r.severity = 'warn'));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_release AFTER INSERT ON event
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_release();
"""
"""The rules of releases, which the database looks at with every commit; `checked`: datasets."""


def finding(run_id: str | UUID) -> dict:
    """Return what a run of a check finds: the same, whichever worker carries it out."""
    number = UUID(str(run_id)).int % 16
    return {"passed": number < 10, "severity": "warn" if number == 15 else None}
