/** A form made of a JSON Schema: one field a property, and JSON for what has no field of its own. */
import { useId } from "preact/hooks";

export type Values = Record<string, unknown>;

export interface Property {
  type?: string | readonly string[];
  enum?: readonly unknown[];
  const?: unknown;
  title?: string;
  description?: string;
  default?: unknown;
  format?: string;
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  items?: Property;
  properties?: Record<string, Property>;
  required?: readonly string[];
  examples?: readonly unknown[];
  anyOf?: readonly Property[];
}

export interface Schema {
  properties?: Record<string, Property>;
  required?: readonly string[];
}

type Kind = "enum" | "string" | "integer" | "number" | "boolean" | "choices" | "lines" | "object" | "json";
const SCALARS = ["string", "integer", "number", "boolean"];

/** What a property is apart from null, which is an empty field. */
function plain(property: Property): Property {
  const others = property.anyOf?.filter((each) => each.type !== "null");
  return others?.length === 1 ? { ...others[0], ...property, anyOf: [] } : property;
}

function kindOf(given: Property): Kind {
  const property = plain(given);
  if (property.enum) return "enum";
  const types = [property.type ?? ""].flat().filter((each) => each !== "null");
  const [type] = types;
  if (types.length !== 1) return "json";
  if (SCALARS.includes(type!)) return type as Kind;
  if (type === "array" && property.items) {
    const items = kindOf(property.items);
    if (items === "enum") return "choices";
    if (["string", "integer", "number"].includes(items)) return "lines";
  }
  return type === "object" && property.properties ? "object" : "json";
}

/** Return a schema whose references are replaced by what they name, as far as it is not endless. */
export function resolved(schema: unknown): Schema {
  const whole = schema as Record<string, unknown>;
  const follow = (value: unknown, depth: number): unknown => {
    if (Array.isArray(value)) return value.map((each) => follow(each, depth));
    if (!value || typeof value !== "object") return value;
    const { $ref, ...rest } = value as Record<string, unknown>;
    if (typeof $ref === "string" && depth < 6) {
      const found = $ref.split("/").slice(1).reduce<unknown>((at, part) => (at as Record<string, unknown>)?.[part], whole);
      return { ...(follow(found, depth + 1) as object), ...rest };
    }
    return Object.fromEntries(Object.entries(rest).map(([name, each]) => [name, follow(each, depth)]));
  };
  const { $defs, ...own } = whole;
  return follow(own, 0) as Schema;
}

/** What is typed into fields, by name; those of an object by `name.inner`; undefined where untouched. */
export type Typed = Record<string, string | boolean | undefined>;

/** Turn what was typed into values. Throws an Error that names the field. */
export function valuesOf(schema: Schema, typed: Typed, prefix = ""): Values {
  const values: Values = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const path = prefix + name;
    const kind = kindOf(property);
    if (kind === "object") {
      if (!Object.keys(typed).some((each) => each.startsWith(`${path}.`) && typed[each] !== undefined)) continue;
      const inner = valuesOf(plain(property) as Schema, typed, `${path}.`);
      values[name] = { ...(property.default as Values | undefined), ...inner };
      continue;
    }
    const text = typed[path];
    if (text === undefined || (text === "" && !["string", "lines", "choices"].includes(kind))) continue;
    values[name] = valueOf(path, kind, plain(property), text);
  }
  return values;
}

/** Return how values are shown in the fields of a schema: what would have to be typed for them. */
export function typedOf(schema: Schema, values: Values, prefix = ""): Typed {
  const typed: Typed = {};
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    if (!(name in values)) continue;
    const kind = kindOf(property);
    const value = values[name];
    if (kind === "object" && value && typeof value === "object") {
      Object.assign(typed, typedOf(plain(property) as Schema, value as Values, `${prefix}${name}.`));
    } else typed[prefix + name] = textOf(kind, value);
  }
  return typed;
}

function valueOf(name: string, kind: Kind, property: Property, text: string | boolean): unknown {
  if (typeof text === "boolean") return text;
  if (kind === "string") return checked(name, property, text);
  if (kind === "enum") return property.enum!.find((each) => JSON.stringify(each) === text);
  if (kind === "choices" || kind === "lines") {
    const lines = text.split("\n").filter(Boolean);
    if (property.minItems !== undefined && lines.length < property.minItems) {
      throw new Error(`${name} takes at least ${property.minItems} values`);
    }
    if (property.maxItems !== undefined && lines.length > property.maxItems) {
      throw new Error(`${name} takes at most ${property.maxItems} values`);
    }
    if (kind === "choices") return lines.map((line) => JSON.parse(line) as unknown);
    return lines.map((line) => valueOf(`${name}: ${line}`, kindOf(property.items!), plain(property.items!), line));
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(`${name} is not ${kind === "json" ? "valid JSON" : `a number: ${text}`}`);
  }
  if (kind === "integer" && !Number.isInteger(value)) throw new Error(`${name} is not a whole number`);
  return value;
}

/** Checks what people would see only after they had sent it; the server checks everything. */
function checked(name: string, property: Property, text: string): string {
  if (property.pattern === undefined || !text) return text;
  let pattern: RegExp;
  try {
    pattern = new RegExp(property.pattern, "u");
  } catch {
    return text; // it is a pattern of another dialect: the server knows it
  }
  if (!pattern.test(text)) throw new Error(`${name} does not match ${property.pattern}`);
  return text;
}

const TYPES: Record<string, string> = {
  date: "date",
  time: "time",
  email: "email",
  uri: "url",
  password: "password",
};

interface FieldProps {
  name: string;
  path: string;
  property: Property;
  required: boolean;
  typed: Typed;
  set: (path: string, value: string | boolean | undefined) => void;
}

function Field(props: FieldProps) {
  const { name, path, required } = props;
  const property = plain(props.property);
  const id = useId();
  const about = useId();
  const kind = kindOf(property);
  const typed = props.typed[path];
  const set = (value: string | boolean | undefined) => props.set(path, value);
  const needed = required && props.property.default === undefined;
  const title = props.property.title ?? name;
  const initial = typed ?? textOf(kind, props.property.default);
  const shared = { id, name: path, "aria-describedby": about, required: needed };
  const hint = [
    props.property.description,
    kind === "json" && "JSON",
    kind === "lines" && "one a line",
    property.pattern && `matches ${property.pattern}`,
    (property.minimum !== undefined || property.maximum !== undefined) &&
      `${property.minimum ?? "…"} to ${property.maximum ?? "…"}`,
  ].filter(Boolean);
  if (kind === "object") {
    return (
      <fieldset class="choice field">
        <legend>{title}</legend>
        {hint.length > 0 && <p class="hint">{hint.join(" · ")}</p>}
        <Nested {...props} property={withDefaults(property, props.property.default)} prefix={`${path}.`} />
      </fieldset>
    );
  }
  if (kind === "choices") {
    const chosen = String(initial).split("\n").filter(Boolean);
    return (
      <fieldset class="choice field">
        <legend>{title}</legend>
        {plain(property.items!).enum!.map((each) => {
          const text = JSON.stringify(each);
          return (
            <label key={text} class="line">
              <input
                type="checkbox"
                checked={chosen.includes(text)}
                onChange={(event) =>
                  set((event.currentTarget.checked ? [...chosen, text] : chosen.filter((one) => one !== text)).join("\n"))
                }
              />
              {String(each)}
            </label>
          );
        })}
        {hint.length > 0 && <p class="hint">{hint.join(" · ")}</p>}
      </fieldset>
    );
  }
  let input = (
    <textarea
      {...shared}
      rows={kind === "lines" ? Math.min(8, Math.max(2, String(initial).split("\n").length + 1)) : 3}
      class={kind === "json" ? "code" : ""}
      value={String(initial)}
      onInput={(event) => set(event.currentTarget.value)}
    />
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
        {props.property.default === undefined && <option value="">–</option>}
        {property.enum!.map((each) => (
          <option key={JSON.stringify(each)} value={JSON.stringify(each)}>
            {String(each)}
          </option>
        ))}
      </select>
    );
  } else if (kind === "string" && ((property.maxLength ?? 0) > 200 || property.format === "multiline")) {
    input = <textarea {...shared} rows={4} value={String(initial)} onInput={(event) => set(event.currentTarget.value)} />;
  } else if (kind === "string" || kind === "integer" || kind === "number") {
    const examples = kind === "string" ? (props.property.examples ?? []) : [];
    input = (
      <>
        <input
          {...shared}
          type={(kind === "string" ? (TYPES[property.format ?? ""] ?? "text") : "number") as "text"}
          step={kind === "number" ? "any" : kind === "integer" ? 1 : undefined}
          min={property.minimum}
          max={property.maximum}
          minLength={property.minLength}
          maxLength={property.maxLength}
          placeholder={property.format === "date-time" ? "2026-11-20T09:00:00Z" : undefined}
          list={examples.length ? `${id}-examples` : undefined}
          value={String(initial)}
          onInput={(event) => set(event.currentTarget.value)}
        />
        {examples.length > 0 && (
          <datalist id={`${id}-examples`}>
            {examples.map((each) => (
              <option key={String(each)} value={String(each)} />
            ))}
          </datalist>
        )}
      </>
    );
  }
  return (
    <div class="field">
      <label htmlFor={id}>
        {title}
        {needed && <span class="faint"> (required)</span>}
      </label>
      {input}
      <p class="hint" id={about}>
        {hint.join(" · ")}
      </p>
    </div>
  );
}

/** The fields of an object, with the values of its own default as theirs. */
function withDefaults(property: Property, given: unknown): Property {
  if (!given || typeof given !== "object") return property;
  const values = given as Values;
  const properties = Object.entries(property.properties ?? {}).map(([name, each]) => [
    name,
    name in values ? { ...each, default: values[name] } : each,
  ]);
  return { ...property, properties: Object.fromEntries(properties) as Record<string, Property> };
}

function textOf(kind: Kind, value: unknown): string | boolean {
  if (value === undefined || value === null) return "";
  if (kind === "string") return String(value);
  if (kind === "boolean") return value === true;
  if (kind === "lines" && Array.isArray(value)) return value.map(String).join("\n");
  if (kind === "choices" && Array.isArray(value)) return value.map((each) => JSON.stringify(each)).join("\n");
  return JSON.stringify(value);
}

function Nested(props: Pick<FieldProps, "property" | "typed" | "set"> & { prefix: string }) {
  const needed = new Set(props.property.required ?? []);
  return (
    <>
      {Object.entries(props.property.properties ?? {}).map(([name, property]) => (
        <Field
          key={name}
          name={name}
          path={props.prefix + name}
          property={property}
          required={needed.has(name)}
          typed={props.typed}
          set={props.set}
        />
      ))}
    </>
  );
}

export function Fields(props: { schema: Schema; typed: Typed; set: (typed: Typed) => void }) {
  const set = (path: string, value: string | boolean | undefined) => props.set({ ...props.typed, [path]: value });
  return <Nested property={props.schema as Property} typed={props.typed} set={set} prefix="" />;
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
