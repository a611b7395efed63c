/** What a schedule would make of events: written, drawn, and explained at any moment. */
import type { Clause, EventView, SimulationView } from "#routes";
import { useRef, useState } from "preact/hooks";
import { call, messageOf } from "../../core/api";
import { useResource } from "../../core/resource";
import { address, setQuery, to as linkTo } from "../../core/router";
import { Same, command, say } from "../../ui/dialog";
import { Moment, Text } from "../../ui/fields";
import { faultOf } from "../../ui/form";
import { Copy, Heading, Loaded, Problem, Shape, State, Table } from "../../ui/parts";
import { Drawing, labelOf, lanesOf } from "./drawing";
import { EXAMPLES } from "./examples";
import { type Invented, iso, readEvent, writeEvent } from "./events";

const HOUR = 3_600_000;

interface Choice {
  dag: string;
  text: string;
  events: Invented[];
  from: number;
  to: number;
  lasts: number;
}

interface Shown {
  found: SimulationView;
  choice: Choice;
}

/** What the address says. */
function choiceOf(query: URLSearchParams): Choice {
  const dag = query.get("dag") ?? "";
  const first = EXAMPLES[0]!;
  const fresh = !dag && !query.has("schedule");
  const written = fresh ? first.events : query.getAll("e");
  const events = written.map(readEvent).filter((each) => each !== undefined);
  const times = events.map((each) => Date.parse(each.time));
  // Without events only ticks are to come: those from now on.
  const earliest = times.length ? Math.min(...times) - HOUR : Math.floor(Date.now() / HOUR) * HOUR;
  const from = Date.parse(query.get("from") ?? "") || earliest;
  const last = Math.max(from, ...times);
  const to = Date.parse(query.get("to") ?? "") || (times.length ? last + 2 * HOUR : from + 24 * HOUR);
  return {
    dag,
    text: fresh ? first.schedule : (query.get("schedule") ?? ""),
    events,
    from,
    to: Math.max(to, from + 60_000),
    lasts: Number(query.get("lasts") ?? 0) || 0,
  };
}

function bodyOf(choice: Choice, until = choice.to) {
  return {
    ...(choice.dag && { dag: choice.dag }),
    ...(choice.text && { schedule: choice.text }),
    events: choice.events,
    from: iso(choice.from),
    to: iso(until),
    ...(choice.lasts && { lasts_seconds: choice.lasts }),
  };
}

export function Simulator() {
  const { query } = address.value;
  const choice = choiceOf(query);
  const at = Date.parse(query.get("at") ?? "");
  const cursor = at > choice.from && at < choice.to ? at : undefined;
  const ready = Boolean(choice.dag || choice.text);
  const body = bodyOf(choice);
  const loaded = useResource(`simulation ${ready} ${JSON.stringify(body)}`, async (signal) => {
    if (!ready) return null;
    return { found: await call("POST /api/v1/schedules/simulate", { body: body as never }, signal), choice };
  });
  // The last one stays until the next one is there: a process starts for each.
  const last = useRef<Shown | null>(null);
  if (loaded.value !== undefined) last.current = loaded.value;
  const shown = last.current;
  const found = { value: shown?.found, error: loaded.error };
  const names = useResource("simulator dags", (signal) =>
    call("GET /api/v1/dags", { query: { limit: 1000 } }, signal),
  );
  // The axis stays while an event is put on it; one that lies elsewhere moves it.
  const setEvents = (events: readonly Invented[]) => {
    const stays = events.every((each) => Date.parse(each.time) >= choice.from && Date.parse(each.time) <= choice.to);
    const axis = stays ? { from: iso(choice.from), to: iso(choice.to) } : { from: undefined, to: undefined };
    setQuery({ e: events.map(writeEvent), schedule: choice.text, ...axis });
  };
  const [editing, edit] = useState<number>();
  return (
    <>
      <Heading title="Simulator" />
      <p class="faint">
        When a schedule would start a run, and why: decided by the code of the manager, on a clock that jumps. Nothing
        is started.
      </p>
      <div class="wizard">
        <form class="panel" aria-label="The schedule" onSubmit={(event) => event.preventDefault()}>
          <Text
            label="Of the DAG"
            value={choice.dag}
            options={names.value?.items.filter((dag) => dag.schedule).map((dag) => dag.dag_id) ?? []}
            hint="its schedule and params; leave it out to write a schedule alone"
            set={(dag) => setQuery({ dag, ...(dag ? { schedule: undefined } : { schedule: found.value?.python ?? "" }) })}
          />
          <Text
            label="Schedule, as in a DAG file"
            rows={5}
            value={choice.text || (found.value?.python ?? "")}
            hint={
              found.value && !found.value.python
                ? "a part of it can only be written in its own file"
                : "with lines before it such as orders = Dataset(…), if you like"
            }
            set={(schedule) => setQuery({ schedule, e: choice.events.map(writeEvent) })}
          />
          <div class="field">
            <label htmlFor="example">Examples</label>
            <select
              id="example"
              value=""
              onChange={(event) => {
                const example = EXAMPLES[Number(event.currentTarget.value)];
                if (!example) return;
                setQuery({
                  dag: undefined,
                  schedule: example.schedule,
                  e: [...example.events],
                  from: undefined,
                  to: undefined,
                  at: undefined,
                });
              }}
            >
              <option value="">choose one…</option>
              {EXAMPLES.map((each, index) => (
                <option key={each.name} value={index}>
                  {each.name}
                </option>
              ))}
            </select>
          </div>
          <div class="pair">
            <Moment label="From" value={iso(choice.from)} set={(from) => setQuery({ from })} />
            <Moment label="To" value={iso(choice.to)} set={(to) => setQuery({ to })} />
          </div>
          <Text
            label="Seconds that each run lasts"
            type="number"
            value={choice.lasts ? String(choice.lasts) : ""}
            set={(lasts) => setQuery({ lasts })}
          />
        </form>
        <section class="simulated" aria-label="What would happen">
          {found.error && <Problem error={found.error} />}
          {ready && loaded.value === undefined && !found.error && (
            <p class="loading" role="status">
              Simulating…
            </p>
          )}
          {shown && found.value && (
            <>
              <Drawing
                found={found.value}
                events={shown.choice.events}
                from={shown.choice.from}
                to={shown.choice.to}
                cursor={cursor}
                choose={edit}
                add={(dataset, time) => setEvents([...choice.events, { dataset, time: iso(time) }])}
              />
              <EventForm
                key={`${editing} ${editing === undefined ? "" : JSON.stringify(choice.events[editing])}`}
                lanes={lanesOf({ found: found.value, events: choice.events })}
                event={editing === undefined ? undefined : choice.events[editing]}
                fresh={iso(choice.from + HOUR)}
                save={(event) => {
                  const events = [...choice.events];
                  if (editing === undefined) events.push(event);
                  else events[editing] = event;
                  setEvents(events);
                  edit(undefined);
                }}
                back={() => edit(undefined)}
              />
              <Happenings
                found={found.value}
                choice={shown.choice}
                edit={edit}
                remove={(index) => {
                  setEvents(choice.events.filter((_, each) => each !== index));
                  edit(undefined);
                }}
              />
              {!found.error && (
                <Then
                  choice={choice}
                  cursor={cursor}
                  found={found.value}
                  add={(event) => setEvents([...choice.events, event])}
                />
              )}
              <Real datasets={found.value.datasets} take={setEvents} />
              {found.value.python && (
                <p class="line">
                  <code>{found.value.python}</code>
                  <Copy text={found.value.python} what="the schedule" />
                </p>
              )}
            </>
          )}
          {!ready && <p class="reason">Choose a DAG, or write a schedule.</p>}
          <Same
            cli={command(
              ...["dags", "simulate", choice.dag],
              ...(choice.text ? ["--schedule", choice.text] : []),
              ...choice.events.flatMap((event) => ["--event", writeEvent(event)]),
              ...["--from", iso(choice.from), "--to", iso(choice.to)],
              ...(choice.lasts ? ["--lasts", choice.lasts] : []),
            )}
            request={{ method: "POST", path: "/api/v1/schedules/simulate", body }}
          />
        </section>
      </div>
    </>
  );
}

function EventForm(props: {
  lanes: readonly string[];
  event: Invented | undefined;
  fresh: string;
  save: (event: Invented) => void;
  back: () => void;
}) {
  const { event } = props;
  const [dataset, setDataset] = useState(event?.dataset ?? props.lanes[0] ?? "");
  const [time, setTime] = useState(event?.time ?? props.fresh);
  const [partition, setPartition] = useState(event?.partition ?? "");
  const [extra, setExtra] = useState(event?.extra ? JSON.stringify(event.extra) : "");
  const fault = extra ? faultOf(extra) : undefined;
  return (
    <form
      class="filters panel"
      aria-label={event ? "Change the event" : "Add an event"}
      onSubmit={(submitted) => {
        submitted.preventDefault();
        if (fault || !dataset || !time) return;
        const object = extra ? (JSON.parse(extra) as Record<string, unknown>) : undefined;
        props.save({ dataset, time, ...(partition && { partition }), ...(object && { extra: object }) });
      }}
    >
      <label>
        Dataset
        <input
          required
          list="lanes"
          value={dataset}
          onInput={(typed) => setDataset(typed.currentTarget.value.trim())}
        />
      </label>
      <datalist id="lanes">
        {props.lanes.map((lane) => (
          <option key={lane} value={lane} />
        ))}
      </datalist>
      <label>
        At (UTC)
        <input
          required
          type="datetime-local"
          value={time.slice(0, 16)}
          onInput={(typed) => setTime(typed.currentTarget.value && `${typed.currentTarget.value.slice(0, 16)}:00Z`)}
        />
      </label>
      <label>
        Partition
        <input size={12} value={partition} onInput={(typed) => setPartition(typed.currentTarget.value.trim())} />
      </label>
      <label>
        Extra, as JSON
        <input
          size={16}
          placeholder='{"rows": 3}'
          aria-invalid={Boolean(fault)}
          value={extra}
          onInput={(typed) => setExtra(typed.currentTarget.value.trim())}
        />
      </label>
      <button type="submit" class="primary" disabled={Boolean(fault)}>
        {event ? "Change" : "Add"}
      </button>
      {event && (
        <button type="button" class="quiet" onClick={props.back}>
          Back
        </button>
      )}
    </form>
  );
}

interface Happening {
  key: string;
  at: number;
  event?: number;
  run?: number;
}

/** The same as the drawing, as a list in the order of time. */
function Happenings(props: {
  found: SimulationView;
  choice: Choice;
  edit: (index: number) => void;
  remove: (index: number) => void;
}) {
  const { found, choice } = props;
  const rows: Happening[] = [
    ...choice.events.map((event, index) => ({ key: `e${index}`, at: Date.parse(event.time), event: index })),
    ...found.runs.map((run, index) => ({ key: `r${index}`, at: Date.parse(run.at), run: index })),
  ];
  rows.sort((a, b) => a.at - b.at);
  const by = new Map<number, number[]>();
  found.runs.forEach((run, index) => {
    for (const event of run.events ?? []) by.set(event, [...(by.get(event) ?? []), index + 1]);
  });
  if (!rows.length) {
    return <p class="reason">Nothing happens. Click on a line above, or add an event by the form.</p>;
  }
  return (
    <>
      <Table
        label="What happens"
        rows={rows}
        id={(row) => row.key}
        columns={[
          { name: "At", show: (row) => <span class="number">{labelOf(row.at, choice.from, choice.to)}</span> },
          {
            name: "What",
            show: (row) =>
              row.run === undefined ? (
                <>
                  {choice.events[row.event!]!.dataset}{" "}
                  {choice.events[row.event!]!.partition && <span class="chip">{choice.events[row.event!]!.partition}</span>}
                </>
              ) : (
                <strong>Run {row.run + 1} starts</strong>
              ),
          },
          {
            name: "Outcome",
            kind: "wide",
            show: (row) => (row.run === undefined ? <EventFate {...props} of={row.event!} by={by} /> : <RunCause {...props} of={row.run} />),
          },
          {
            name: "Actions",
            show: (row) =>
              row.event === undefined ? null : (
                <span class="actions">
                  <button type="button" onClick={() => props.edit(row.event!)}>
                    Change
                  </button>
                  <button type="button" onClick={() => props.remove(row.event!)}>
                    Remove
                  </button>
                </span>
              ),
          },
        ]}
      />
      {Boolean(found.more_runs) && <p class="faint">and {found.more_runs} more runs</p>}
    </>
  );
}

function RunCause({ found, choice, of }: { found: SimulationView; choice: Choice; of: number }) {
  const run = found.runs[of]!;
  const names = (run.events ?? []).map((event) => {
    const { dataset, time } = choice.events[event]!;
    return `${dataset.split("/").pop()} of ${labelOf(Date.parse(time), choice.from, choice.to)}`;
  });
  return (
    <>
      {run.refused ? (
        <span class="state s-failed">
          <Shape name="failed" /> refused: {run.refused}
        </span>
      ) : (
        run.cause
      )}{" "}
      {run.partition && <span class="chip">{run.partition}</span>}
      <div class="faint">{names.length ? `consumes ${names.join(", ")}` : "consumes nothing"}</div>
    </>
  );
}

function EventFate(props: { found: SimulationView; of: number; by: Map<number, number[]> }) {
  const runs = props.by.get(props.of);
  const lost = props.found.outcomes?.filter((each) => each.event === props.of) ?? [];
  return (
    <span class="line">
      {runs && (
        <>
          <State name="consumed" /> by run {runs.join(", ")}
        </>
      )}
      {lost.map((each) => (
        <span key={`${each.place} ${each.partition}`}>
          <State name={each.outcome} /> {each.reason}
        </span>
      ))}
      {!runs && !lost.length && <State name="unseen" word="after the end" />}
    </span>
  );
}

/** What it waits for at the cursor: the time up to there is simulated by itself. */
function Then(props: {
  choice: Choice;
  cursor: number | undefined;
  found: SimulationView;
  add: (event: Invented) => void;
}) {
  const { choice, cursor, found } = props;
  const at = cursor ?? choice.to;
  const last = Math.max(choice.from, ...choice.events.map((each) => Date.parse(each.time)).filter((each) => each < choice.to));
  // In the end: between the last event and the end, where it is seen and others fit in after it.
  const next = cursor ?? Math.round((last + choice.to) / 120_000) * 60_000;
  const body = bodyOf(choice, at);
  const then = useResource(`then ${cursor} ${JSON.stringify(body)}`, async (signal) =>
    cursor === undefined ? null : call("POST /api/v1/schedules/simulate", { body: body as never }, signal),
  );
  const step = Math.max(60_000, Math.round((choice.to - choice.from) / 60_000 / 200) * 60_000);
  return (
    <section class="panel" aria-label="Why at a moment">
      <h2>What it waits for {cursor === undefined ? "in the end" : `at ${labelOf(at, choice.from, choice.to)}`}</h2>
      <label class="line">
        At
        <input
          type="range"
          min={choice.from}
          max={choice.to}
          step={step}
          value={at}
          aria-valuetext={iso(at)}
          onChange={(event) => {
            const time = Number(event.currentTarget.value);
            setQuery({ at: time >= choice.to ? undefined : iso(time) });
          }}
        />
        <span class="number">{iso(at).replace("T", " ").replace(/(:00)?Z$/, " UTC")}</span>
      </label>
      <Loaded of={cursor === undefined ? { ...then, value: found, error: undefined } : then} what="why">
        {(shown) => shown && (
          <>
            <p>
              {shown.runs.length} {shown.runs.length === 1 ? "run has" : "runs have"} started by then.
              {shown.next_tick && ` The next tick is at ${shown.next_tick.slice(0, 16).replace("T", " ")} UTC.`}
            </p>
            {shown.waiting?.length ? (
              <ul class="tree">
                {shown.waiting.map((each) => (
                  <li key={each.partition ?? ""}>
                    <div class="line">
                      {each.partition && <span class="chip">{each.partition}</span>} waits for {each.waits_for}
                    </div>
                    <ul>
                      <Part
                        clause={each.condition}
                        datasets={found.datasets}
                        add={(dataset) =>
                          props.add({ dataset, time: iso(next), ...(each.partition && { partition: each.partition }) })
                        }
                      />
                    </ul>
                  </li>
                ))}
              </ul>
            ) : (
              <p>Nothing is pending.</p>
            )}
          </>
        )}
      </Loaded>
    </section>
  );
}

const JOINS: Record<string, string> = { all: "all of", any: "any of", or_after: "or after a time" };

function Part(props: { clause: Clause; datasets: readonly string[]; add: (dataset: string) => void }) {
  const { clause, datasets } = props;
  // Of a pattern any dataset that it matches would do: which one, only a person can say.
  const lacking =
    clause.kind === "dataset" && !clause.holds
      ? datasets.find((each) => clause.text === each || clause.text.startsWith(`${each}.`))
      : undefined;
  return (
    <li>
      <div class="line">
        <span class={`state ${clause.holds ? "s-success" : "s-pending"}`}>
          <Shape name={clause.holds ? "success" : "pending"} />
          {clause.holds ? "holds" : "waits"}
        </span>
        {JOINS[clause.kind] ? <strong>{JOINS[clause.kind]}</strong> : <code>{clause.text}</code>}
        {clause.due && <span class="faint">due {clause.due.slice(0, 16).replace("T", " ")} UTC</span>}
        {lacking && (
          <button type="button" aria-label={`Add an event of ${lacking}`} onClick={() => props.add(lacking)}>
            Add one
          </button>
        )}
      </div>
      {clause.sides && clause.sides.length > 0 && (
        <ul>
          {clause.sides.map((side, index) => (
            <Part key={`${index} ${side.text}`} {...props} clause={side} />
          ))}
        </ul>
      )}
    </li>
  );
}

/** Takes the newest events that were really recorded in place of invented ones. */
function Real({ datasets, take }: { datasets: readonly string[]; take: (events: readonly Invented[]) => void }) {
  const named = datasets.filter((each) => !each.includes("*")).slice(0, 10);
  const load = async () => {
    try {
      const pages = await Promise.all(
        named.map(
          (dataset) =>
            call("GET /api/v1/datasets/events", { query: { dataset, limit: 20 } }) as Promise<{ items: EventView[] }>,
        ),
      );
      const events = pages.flatMap((page) => page.items).map(
        (event): Invented => ({
          dataset: event.dataset,
          time: iso(Date.parse(event.recorded_at)),
          ...(event.partition && { partition: event.partition }),
          ...(Object.keys(event.extra).length && { extra: event.extra }),
        }),
      );
      events.sort((a, b) => a.time.localeCompare(b.time));
      if (!events.length) return say("No event of these datasets was recorded.");
      setQuery({ from: undefined, to: undefined, at: undefined });
      take(events);
      const times = events.map((event) => Date.parse(event.time));
      setQuery({ from: iso(Math.min(...times) - HOUR), to: iso(Math.max(...times) + HOUR) });
    } catch (error) {
      say(messageOf(error));
    }
  };
  if (!named.length) return null;
  return (
    <p class="line">
      <button type="button" onClick={load}>
        Take the newest real events
      </button>
      <a href={`${linkTo("events")}?dataset=${encodeURIComponent(named[0]!)}`}>See them</a>
    </p>
  );
}
