/** When a DAG starts by itself: its next ticks, and what became of the last ones. */
import { call } from "../core/api";
import { useResource } from "../core/resource";
import { to } from "../core/router";
import { absolute, duration } from "../core/time";
import { Ago, Empty, Loaded, State, Table, Took } from "../ui/parts";
import { RunLink } from "./runs";

export function Schedule({ dag }: { dag: string }) {
  const found = useResource(
    `schedule ${dag}`,
    (signal) => call("GET /api/v1/dags/{dag_id}/schedule", { path: { dag_id: dag } }, signal),
    { filter: { kinds: ["dag", "run"], dags: [dag] }, every: 60_000 },
  );
  return (
    <Loaded of={found} what="its schedule">
      {(schedule) => (
        <>
          <p>
            {schedule.schedule ? <code>{schedule.schedule}</code> : "It starts only when it is started by hand."}
          </p>
          {schedule.paused && (
            <p class="reason">It is paused: no tick starts a run until it is unpaused.</p>
          )}
          {schedule.upcoming.length > 0 ? (
            <section>
              <h2>Next ticks</h2>
              <Table
                label="Next ticks"
                rows={schedule.upcoming}
                id={(tick) => `${tick.at} ${tick.timetable}`}
                columns={[
                  { name: "In", show: (tick) => <Ago at={tick.at} /> },
                  { name: "At", kind: "wide", show: (tick) => absolute(tick.at) },
                  { name: "Of", show: (tick) => <code>{tick.timetable}</code> },
                ]}
              />
            </section>
          ) : (
            schedule.schedule && (
              <Empty>
                <p>No tick is to come: what it waits for are events.</p>
                <a href={`${to("dags", dag)}?tab=why`}>Why no run starts now</a>
              </Empty>
            )
          )}
          {schedule.past.length > 0 && (
            <section>
              <h2>Last ticks</h2>
              <Table
                label="Last ticks"
                rows={schedule.past}
                id={(run) => run.run_id}
                columns={[
                  { name: "State", show: (run) => <State name={run.state} /> },
                  { name: "Run", show: (run) => <RunLink run={run} /> },
                  {
                    name: "Tick",
                    kind: "wide",
                    show: (run) =>
                      run.logical_time ? absolute(run.logical_time) : "–",
                  },
                  {
                    name: "Began late by",
                    kind: "right",
                    show: (run) => (run.late_seconds == null ? "–" : duration(run.late_seconds * 1000)),
                  },
                  { name: "Took", kind: "right", show: (run) => <Took from={run.created_at} to={run.ended_at} /> },
                ]}
              />
            </section>
          )}
        </>
      )}
    </Loaded>
  );
}
