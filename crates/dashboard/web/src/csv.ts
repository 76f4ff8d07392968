/** CSV of rows that this page put together, in the form of the server's: RFC 4180, UTF-8. */
export function toCsv(head: string[], rows: (string | number | boolean | null | undefined)[][]): string {
  const field = (value: string | number | boolean | null | undefined): string => {
    const text = value == null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [head, ...rows].map(row => `${row.map(field).join(",")}\r\n`).join("");
}
