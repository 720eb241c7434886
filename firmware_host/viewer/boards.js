// The table of boards, shown when several of them work.

const cell = (text) => Object.assign(document.createElement("td"), { textContent: text });

export function showBoards(boards) {
  const section = document.getElementById("boards");
  section.hidden = !boards?.length;
  if (section.hidden) return;
  const lost = boards.filter(({ state }) => state === "lost").length;
  const done = boards.reduce((sum, { finished }) => sum + finished, 0);
  document.getElementById("boards-sum").textContent =
    `${done} done on ${boards.length}${lost ? `, ${lost} lost` : ""}`;
  const warm = boards.some(({ temperature_c }) => temperature_c != null);
  section.querySelector(".warm").hidden = !warm;
  section.querySelector("tbody").replaceChildren(...boards.map((board) => {
    const row = document.createElement("tr");
    row.title = [board.port, board.task, board.error].filter(Boolean).join(": ");
    const link = board.link?.use == null ? "–" : `${Math.round(100 * board.link.use)} %`;
    const degrees = board.temperature_c == null ? "–" : `${Math.round(board.temperature_c)} °C`;
    row.append(
      cell(board.board.replace("/dev/", "")), cell(board.task ?? board.state),
      cell(board.slices == null ? "–" : `${board.done}/${board.slices}`),
      cell(board.slices_per_second?.toFixed(1) ?? "–"), cell(link),
      ...(warm ? [cell(degrees)] : []),
    );
    return row;
  }));
}
