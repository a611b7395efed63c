/** Starts a run, with a form that is made of the schema of the DAG's params. */
import type { RunDetail } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { useResource } from "../core/resource";
import { navigate, to } from "../core/router";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Moment } from "../ui/fields";
import { Fields, JsonField, type Schema, type Typed, type Values, faultOf, resolved, typedOf, valuesOf } from "../ui/form";
import { Loaded } from "../ui/parts";

/** What a form begins with: the params and the rest of an earlier run. */
export type Like = Pick<RunDetail, "params" | "partition" | "logical_time" | "tags">;

export function StartButton({ dag, keys, name, like }: { dag: string; keys?: string; name?: string; like?: Like }) {
  return (
    <ActionButton
      name={name ?? "Start"}
      {...(keys ? { keys } : {})}
      dialog={(close) => <StartDialog dag={dag} close={close} {...(like ? { like } : {})} />}
    />
  );
}

function StartDialog({ dag, close, like }: { dag: string; close: () => void; like?: Like }) {
  const path = { dag_id: dag };
  const loaded = useResource(`start ${dag}`, async (signal) => {
    const [detail, schema] = await Promise.all([
      call("GET /api/v1/dags/{dag_id}", { path }, signal),
      call("GET /api/v1/dags/{dag_id}/params", { path }, signal),
    ]);
    return { detail, schema: resolved(schema) };
  });
  return (
    <Loaded of={loaded} what="its params">
      {({ detail, schema }) => (
        <StartForm
          dag={dag}
          schema={schema}
          presets={detail.presets ?? {}}
          close={close}
          {...(like ? { like } : {})}
        />
      )}
    </Loaded>
  );
}

interface FormProps {
  dag: string;
  schema: Schema;
  presets: Readonly<Record<string, Values>>;
  close: () => void;
  like?: Like;
}

function StartForm({ dag, schema, presets, close, like }: FormProps) {
  const [typed, setTyped] = useState<Typed>(like ? typedOf(schema, like.params) : {});
  const [json, setJson] = useState<string>();
  const [preset, setPreset] = useState("");
  const [partition, setPartition] = useState(like?.partition ?? "");
  const [logical, setLogical] = useState(like?.logical_time ?? "");
  const [tags, setTags] = useState((like?.tags ?? []).join(" "));
  const shown = withPreset(schema, presets[preset]);
  let fault = json === undefined ? undefined : faultOf(json);
  let params: Values = {};
  try {
    if (!fault) params = json === undefined ? valuesOf(shown, typed) : (JSON.parse(json) as Values);
  } catch (error) {
    fault = (error as Error).message;
  }
  const labels = tags.split(/[\s,]+/).filter(Boolean);
  const body = {
    params,
    ...(preset && { preset }),
    ...(partition && { partition }),
    ...(logical && { logical_time: logical }),
    ...(labels.length && { tags: labels }),
  };
  const given = Object.keys(params).length > 0;
  const names = Object.keys(schema.properties ?? {});
  return (
    <ActionDialog
      title={like ? `Run ${dag} again` : `Start ${dag}`}
      verb="Start"
      role="operator"
      about={{ dag }}
      close={close}
      ready={!fault}
      cli={command(
        ...["dags", "trigger", dag],
        ...(given ? ["--params", JSON.stringify(params)] : []),
        ...(preset ? ["--preset", preset] : []),
        ...(partition ? ["--partition", partition] : []),
        ...(logical ? ["--logical-time", logical] : []),
        ...labels.flatMap((tag) => ["--tag", tag]),
      )}
      request={{ method: "POST", path: `/api/v1/dags/${encodeURIComponent(dag)}/runs`, body }}
      act={async () => {
        const started = await call("POST /api/v1/dags/{dag_id}/runs", { path: { dag_id: dag }, body });
        navigate(to("runs", started.run_id));
        return `A run of ${dag} has started.`;
      }}
    >
      {Object.keys(presets).length > 0 && (
        <label class="field">
          Preset
          <select
            value={preset}
            onChange={(event) => {
              setPreset(event.currentTarget.value);
              setTyped({});
            }}
          >
            <option value="">none: the defaults</option>
            {Object.keys(presets).map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      {names.length === 0 && <p>It takes no params.</p>}
      {json === undefined ? (
        <Fields schema={shown} typed={typed} set={setTyped} />
      ) : (
        <JsonField label="Params in place of the defaults" text={json} set={setJson} rows={10} />
      )}
      {names.length > 0 && (
        <button
          type="button"
          class="quiet"
          onClick={() => {
            if (json === undefined) setJson(JSON.stringify(params, null, 2));
            else {
              if (!faultOf(json)) setTyped(typedOf(schema, JSON.parse(json) as Values));
              setJson(undefined);
            }
          }}
        >
          {json === undefined ? "As JSON" : "As fields"}
        </button>
      )}
      {fault && <p class="reason">{fault}</p>}
      <details open={Boolean(like?.partition || like?.logical_time || like?.tags?.length)}>
        <summary>Partition, logical time and tags</summary>
        <div class="pair">
          <label class="field">
            Partition
            <input value={partition} onInput={(event) => setPartition(event.currentTarget.value)} />
          </label>
          <Moment label="Logical time" value={logical} set={setLogical} />
          <label class="field">
            Tags, apart by spaces
            <input value={tags} onInput={(event) => setTags(event.currentTarget.value)} />
          </label>
        </div>
      </details>
    </ActionDialog>
  );
}

/** The schema with the params of a preset as its defaults: the server lays them under what is given. */
function withPreset(schema: Schema, preset: Values | undefined): Schema {
  if (!preset) return schema;
  const properties = Object.entries(schema.properties ?? {}).map(([name, property]) => [
    name,
    name in preset ? { ...property, default: preset[name] } : property,
  ]);
  return { ...schema, properties: Object.fromEntries(properties) as NonNullable<Schema["properties"]> };
}
