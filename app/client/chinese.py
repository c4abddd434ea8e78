"""The client's own sentences in Chinese, by the English ones."""

CHINESE: dict[str, str] = {
    "--set {setting}: write FIELD=VALUE, such as max_steps=200.": (
        "--set {setting}：请写成 字段=值，例如 max_steps=200。"
    ),
    "Connecting": "正在连接",
    "Ctrl-C stops an answer, Ctrl-D ends the conversation.": "按 Ctrl-C 停止当前回答，按 Ctrl-D 结束对话。",
    "Deleted: {id}": "已删除：{id}",
    "Restored: {id}": "已恢复：{id}",
    "The trash is empty.": "回收站是空的。",
    "Export": "导出",
    "done": "已完成",
    "Logged in to {url} as {name}.": "已以 {name} 的身份登录 {url}。",
    "Name": "用户名",
    "Password": "密码",
    "Run `athanor login`.": "请运行 `athanor login`。",
    "Stopped.": "已停止。",
    "The answer of {url} is not understood. Do client and server have the same version?": (
        "无法理解 {url} 的应答。客户端与服务器的版本是否一致？"
    ),
    "The connection to {url} broke, and the join token may be used now. Create a new one.": (
        "与 {url} 的连接已断开，加入令牌可能已被使用。请创建一个新令牌。"
    ),
    "The connection broke; connecting again.": "连接已断开，正在重新连接。",
    "The job keeps running. Watch it again: athanor watch {id}": "任务仍在运行。再次查看：athanor watch {id}",
    "The task {id} was cancelled.": "后台任务 {id} 已被取消。",
    "The token is deleted from this machine. Revoke it on the account page if others may have seen it.": (
        "令牌已从本机删除。如果可能有他人看到过它，请在账户页面将其吊销。"
    ),
    "Sample at step {step}: {text}": "第 {step} 步的样本：{text}",
    "step {step} of {total}": "第 {step}/{total} 步",
    "The settings of “{name}” are not a JSON object.": "“{name}”的设置不是 JSON 对象。",
    "The archive {name} is not complete. Export the job again.": "归档 {name} 不完整，请重新导出该任务。",
    "{name} in the archive differs from its manifest. Export the job again.": (
        "归档中的 {name} 与清单不一致，请重新导出该任务。"
    ),
    "{file} is not JSON: {why}.": "{file} 不是 JSON：{why}。",
    "{file} must hold a JSON object.": "{file} 的内容必须是一个 JSON 对象。",
    "{name} cannot be loaded: {why}": "无法加载 {name}：{why}",
    "{name} arrived damaged and was deleted. Download it again.": "{name} 在传输中损坏，已被删除。请重新下载。",
    "{time} left": "剩余 {time}",
    "{url} cannot be reached: {why}. Is the server running, and is the address right?": (
        "无法连接 {url}：{why}。服务器是否在运行？地址是否正确？"
    ),
    "{url} is not the address of Athanor.": "{url} 不是 Athanor 的地址。",
}
