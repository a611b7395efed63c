/** Versions of a DAG: which are in force, what each changed, its files, and putting one in force. */
import type { DagDetail, VersionView } from "#routes";
import { useState } from "preact/hooks";
import { call, urlOf } from "../core/api";
import { diff, near } from "../core/diff";
import { lacking } from "../core/me";
import { usePages, useResource } from "../core/resource";
import { address, setQuery } from "../core/router";
import { bytes, duration } from "../core/time";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Ago, Empty, Facts, Loaded, Shape, State, Table } from "../ui/parts";

export function Versions({ dag, done }: { dag: DagDetail; done: () => void }) {
  const { query } = address.value;
  const found = usePages(
    `versions ${dag.dag_id} ${dag.revision}`,
    (wanted, signal) =>
      call("GET /api/v1/dags/{dag_id}/versions", { path: { dag_id: dag.dag_id }, query: wanted as never }, signal),
    { filter: { kinds: ["dag"], dags: [dag.dag_id] } },
  );
  const shown = Number(query.get("version") ?? dag.version);
  const against = query.get("against");
  return (
    <>
      <Facts
        of={[
          ["In force", `v${dag.version}`],
          ["Its file defines", `v${dag.newest_version ?? dag.version}`],
          ["Follows its file", dag.pin ? null : "yes: the newest version takes the runs"],
          ["Pinned", dag.pin && <>by {dag.pin.by} <Ago at={dag.pin.at} /></>],
        ]}
      />
      {(dag.shares ?? []).length > 0 && <Shares dag={dag} />}
      <Loaded of={found} what="the versions">
        {(versions) => (
          <Table
            label="Versions"
            rows={versions}
            id={(version) => String(version.number)}
            more={found.more}
            columns={[
              {
                name: "Version",
                show: (version) => (
                  <button
                    type="button"
                    class="chip"
                    aria-pressed={version.number === shown}
                    onClick={() => setQuery({ version: String(version.number), against: undefined })}
                  >
                    v{version.number}
                  </button>
                ),
              },
              {
                name: "State",
                show: (version) =>
                  version.in_force ? (
                    <span class="state s-success">
                      <Shape name="success" /> in force
                    </span>
                  ) : (
                    <span class="faint">{version.stored ? "stored" : "its files are gone"}</span>
                  ),
              },
              { name: "What it changed", kind: "wide", show: changesOf },
              { name: "Since", show: (version) => <Ago at={version.created_at} /> },
              {
                name: "Runs",
                kind: "right",
                minor: true,
                show: ({ runs }) =>
                  runs.total ? (
                    <>
                      {runs.total}
                      {runs.failed ? <span class="state s-failed"> ({runs.failed} failed)</span> : ""}
                    </>
                  ) : (
                    "–"
                  ),
              },
              {
                name: "Mean",
                kind: "right",
                minor: true,
                show: ({ runs }) => (runs.mean_seconds == null ? "–" : duration(runs.mean_seconds * 1000)),
              },
              {
                name: "Actions",
                show: (version) => (
                  <span class="actions">
                    {version.number !== shown && (
                      <button
                        type="button"
                        aria-pressed={against === String(version.number)}
                        onClick={() => setQuery({ version: String(shown), against: String(version.number) })}
                      >
                        Compare
                      </button>
                    )}
                    {!version.in_force && <Promote dag={dag} version={version} done={done} />}
                  </span>
                ),
              },
            ]}
          />
        )}
      </Loaded>
      <Files dag={dag.dag_id} version={shown} against={against ? Number(against) : undefined} />
    </>
  );
}

function Shares({ dag }: { dag: DagDetail }) {
  return (
    <section>
      <h2>Two versions share the new runs</h2>
      <Table
        label="Shares"
        rows={dag.shares!}
        id={(share) => String(share.version)}
        columns={[
          { name: "Version", show: (share) => `v${share.version}` },
          { name: "Share", kind: "right", show: (share) => `${Math.round(share.share * 100)} %` },
          { name: "Since", show: (share) => <Ago at={share.since} /> },
          { name: "Runs", kind: "right", show: (share) => share.runs.total ?? 0 },
          {
            name: "Failed",
            kind: "right",
            show: (share) => (share.runs.failed ? <State name="failed" /> : "none"),
          },
        ]}
      />
    </section>
  );
}

function changesOf({ changes }: VersionView) {
  if (!changes) return <span class="faint">the first</span>;
  const parts = [
    changes.added?.length && `added ${changes.added.join(", ")}`,
    changes.removed?.length && `removed ${changes.removed.join(", ")}`,
    ...(changes.changed ?? []).map((task) => `${task.task_id}: ${task.fields.join(", ")}`),
    changes.schedule && "schedule",
    changes.options?.length && `options ${changes.options.join(", ")}`,
    changes.code && "code",
  ].filter(Boolean);
  return parts.join("; ") || "nothing that is compared";
}

function Promote({ dag, version, done }: { dag: DagDetail; version: VersionView; done: () => void }) {
  const back = version.number < dag.version;
  return (
    <ActionButton
      name={back ? "Roll back" : "Promote"}
      disabled={!version.stored && "Its files are not stored any more."}
      dialog={(close) => <PromoteDialog dag={dag} version={version} back={back} close={close} done={done} />}
    />
  );
}

function PromoteDialog(props: {
  dag: DagDetail;
  version: VersionView;
  back: boolean;
  close: () => void;
  done: () => void;
}) {
  const { dag, version, back } = props;
  const [percent, setPercent] = useState("100");
  const share = Number(percent) / 100;
  const path = { dag_id: dag.dag_id };
  const body = back ? { to: version.number } : { version: version.number, ...(share < 1 && { share }) };
  const route = back ? "POST /api/v1/dags/{dag_id}/rollback" : "POST /api/v1/dags/{dag_id}/promote";
  return (
    <ActionDialog
      title={back ? `Roll ${dag.dag_id} back to v${version.number}` : `Promote v${version.number} of ${dag.dag_id}`}
      verb={back ? "Roll back" : "Promote"}
      role="operator"
      close={props.close}
      ready={share > 0 && share <= 1}
      cli={
        back
          ? command("dags", "rollback", dag.dag_id, "--to", version.number)
          : command("dags", "promote", dag.dag_id, version.number, share < 1 && "--share", share < 1 && `${percent}%`)
      }
      request={{ method: "POST", path: urlOf(route, { path }), body }}
      act={async () => {
        await call(route, { path, body: body as never, revision: dag.revision });
        props.done();
        return `v${version.number} of ${dag.dag_id} takes ${!back && share < 1 ? `${percent} % of the` : "the"} new runs.`;
      }}
    >
      <p>
        New runs have v{version.number}
        {!back && share < 1 ? ` for ${percent} % of them` : ""}; runs under way go on with theirs. v{dag.version} is in
        force now. The DAG stays at what is chosen until one is promoted, whatever its file defines.
      </p>
      {!back && (
        <label class="field">
          Share of new runs, percent
          <input type="number" min="1" max="100" value={percent} onInput={(event) => setPercent(event.currentTarget.value)} />
        </label>
      )}
      {version.changes && <p>What it changed: {changesOf(version)}.</p>}
    </ActionDialog>
  );
}

/** The files of a version, or by which lines a file differs from that of another version. */
function Files({ dag, version, against }: { dag: string; version: number; against: number | undefined }) {
  const reason = lacking("operator");
  if (reason) return <p class="reason">Its source: {reason}</p>;
  return <Source dag={dag} version={version} against={against} />;
}

function Source({ dag, version, against }: { dag: string; version: number; against: number | undefined }) {
  const file = address.value.query.get("file") ?? undefined;
  const read = (number: number, signal: AbortSignal) =>
    call(
      "GET /api/v1/dags/{dag_id}/versions/{number}/files",
      { path: { dag_id: dag, number: String(number) }, query: { file } },
      signal,
    );
  const found = useResource(`files ${dag} ${version} ${against} ${file}`, async (signal) => {
    const [own, other] = await Promise.all([read(version, signal), against ? read(against, signal) : undefined]);
    return { own, other };
  });
  return (
    <section>
      <h2>{against ? `What differs from v${against} to v${version}` : `Files of v${version}`}</h2>
      <Loaded of={found} what="its files">
        {({ own, other }) => {
          const known = new Map((other?.files ?? []).map((each) => [each.path, each.hash]));
          const paths = [...new Set([...own.files.map((each) => each.path), ...known.keys()])].sort();
          const hashes = new Map(own.files.map((each) => [each.path, each.hash]));
          const mark = (path: string) => {
            if (!other || known.get(path) === hashes.get(path)) return "";
            return known.has(path) ? (hashes.has(path) ? " (changed)" : " (removed)") : " (added)";
          };
          return (
            <>
              <div class="filters">
                <label>
                  File
                  <select value={own.file} onChange={(event) => setQuery({ file: event.currentTarget.value })}>
                    {paths.map((path) => (
                      <option key={path} value={path}>
                        {path}
                        {mark(path)}
                      </option>
                    ))}
                  </select>
                </label>
                <span class="faint">
                  {paths.length} files, {bytes(own.files.reduce((sum, each) => sum + each.size, 0))}
                </span>
              </div>
              {other ? (
                <Difference before={other.text ?? ""} after={own.text ?? ""} />
              ) : own.text == null ? (
                <Empty>{own.hidden}</Empty>
              ) : (
                <Code text={own.text} label={own.file} />
              )}
            </>
          );
        }}
      </Loaded>
    </section>
  );
}

function Code({ text, label }: { text: string; label: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  return (
    <pre class="source" tabIndex={0} role="region" aria-label={label}>
      {lines.map((line, at) => (
        <span class="l" key={at} id={`L${at + 1}`} data-line={at + 1}>
          {line}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

function Difference({ before, after }: { before: string; after: string }) {
  const lines = near(diff(before, after));
  if (!lines.some((line) => line.sign === "+" || line.sign === "-")) return <Empty>This file is the same in both.</Empty>;
  return (
    <pre class="source" tabIndex={0} role="region" aria-label="Lines that differ">
      {lines.map((line, at) => (
        <span class={`l ${{ "+": "added", "-": "removed", "…": "gap", " ": "" }[line.sign]}`} key={at} data-line={line.after ?? line.before}>
          {line.sign} {line.text}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
