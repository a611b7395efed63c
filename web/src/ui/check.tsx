export function Check(props: { label: string; value: boolean; set: (value: boolean) => void; disabled?: boolean }) {
  return (
    <label class="line">
      <input
        type="checkbox"
        checked={props.value}
        disabled={props.disabled}
        onChange={(event) => props.set(event.currentTarget.checked)}
      />{" "}
      {props.label}
    </label>
  );
}
