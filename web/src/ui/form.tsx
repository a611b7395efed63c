/** A form made of a JSON Schema: one field a property, and JSON for what has no field of its own. */
import { useId } from "preact/hooks";

export type Values = Record<string, unknown>;

interface Property {
  type?: string | string[];
  enum?: unknown[];
  title?: string;
  description?: string;
  default?: unknown;
  format?: string;
  minimum?: number;
  maximum?: number;
  anyOf?: Property[];
}

interface Schema {
  properties?: Record<string, Property>;
  required?: string[];
}

function kindOf(property: Property): string {
  if (property.enum) return "enum";
  const types = [property.type ?? property.anyOf?.map((each) => each.type ?? "") ?? ""].flat(2);
  const found = types.filter((each) => each !== "null");
  return found.length === 1 && ["string", "integer", "number", "boolean"].includes(found[0]!) ? found[0]! : "json";
}

/** What is typed into fields, by name; undefined for what was left as it is. */
export type Typed = Record<string, string | boolean | undefined>;

/** Turn what was typed into values. Throws an Error that names the field. */
export function valuesOf(schema: Schema, typed: Typed): Values {
  const values: Values = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const text = typed[name];
    if (text === undefined || (text === "" && kindOf(property) !== "string")) continue;
    values[name] = valueOf(name, property, text);
  }
  return values;
}

function valueOf(name: string, property: Property, text: string | boolean): unknown {
  const kind = kindOf(property);
  if (typeof text === "boolean") return text;
  if (kind === "string") return text;
  if (kind === "enum") return property.enum!.find((each) => JSON.stringify(each) === text);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name} is not valid JSON`);
  }
}

function Field(props: {
  name: string;
  property: Property;
  required: boolean;
  typed: string | boolean | undefined;
  set: (value: string | boolean | undefined) => void;
}) {
  const { name, property, typed, set } = props;
  const id = useId();
  const about = useId();
  const kind = kindOf(property);
  const shared = {
    id,
    name,
    "aria-describedby": about,
    required: props.required && property.default === undefined,
  };
  const initial = typed ?? textOf(kind, property.default);
  let input = (
    <textarea {...shared} rows={3} value={String(initial)} onInput={(event) => set(event.currentTarget.value)} />
  );
  if (kind === "boolean") {
    input = (
      <input
        {...shared}
        required={false}
        type="checkbox"
        checked={initial === true || initial === "true"}
        onChange={(event) => set(event.currentTarget.checked)}
      />
    );
  } else if (kind === "enum") {
    input = (
      <select {...shared} value={String(initial)} onChange={(event) => set(event.currentTarget.value)}>
        {property.default === undefined && <option value="">–</option>}
        {property.enum!.map((each) => (
          <option key={JSON.stringify(each)} value={JSON.stringify(each)}>
            {String(each)}
          </option>
        ))}
      </select>
    );
  } else if (kind !== "json") {
    input = (
      <input
        {...shared}
        type={(kind === "string" ? (property.format === "date" ? "date" : "text") : "number") as "text"}
        step={kind === "number" ? "any" : undefined}
        min={property.minimum}
        max={property.maximum}
        value={String(initial)}
        onInput={(event) => set(event.currentTarget.value)}
      />
    );
  }
  return (
    <div class="field">
      <label htmlFor={id}>
        {property.title ?? name}
        {props.required && property.default === undefined && <span class="faint"> (required)</span>}
      </label>
      {input}
      <p class="hint" id={about}>
        {[property.description, kind === "json" && "JSON"].filter(Boolean).join(" · ")}
      </p>
    </div>
  );
}

function textOf(kind: string, value: unknown): string | boolean {
  if (value === undefined) return "";
  if (kind === "string") return value === null ? "" : String(value);
  if (kind === "boolean") return value === true;
  return value === null ? "" : JSON.stringify(value);
}

export function Fields(props: { schema: Schema; typed: Typed; set: (typed: Typed) => void }) {
  const needed = new Set(props.schema.required ?? []);
  return (
    <>
      {Object.entries(props.schema.properties ?? {}).map(([name, property]) => (
        <Field
          key={name}
          name={name}
          property={property}
          required={needed.has(name)}
          typed={props.typed[name]}
          set={(value) => props.set({ ...props.typed, [name]: value })}
        />
      ))}
    </>
  );
}

/** A field for JSON, with what is wrong with it said beside it. */
export function JsonField(props: { label: string; text: string; set: (text: string) => void; rows?: number }) {
  const id = useId();
  const fault = faultOf(props.text);
  return (
    <div class="field">
      <label htmlFor={id}>{props.label}</label>
      <textarea
        id={id}
        class="code"
        rows={props.rows ?? 6}
        spellcheck={false}
        aria-invalid={Boolean(fault)}
        aria-describedby={`${id}-fault`}
        value={props.text}
        onInput={(event) => props.set(event.currentTarget.value)}
      />
      <p class="hint" id={`${id}-fault`}>
        {fault ?? "valid JSON"}
      </p>
    </div>
  );
}

export function faultOf(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
