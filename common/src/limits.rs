//! Every bound of the system: on queues, lists, strings, loops and messages.
//!
//! Units come last in a name. Relations between limits are checked when this file is compiled.
//! The text of a limit says what happens at it.

// --- Names and text -------------------------------------------------------------------------

/// Length of a name of a job, queue, pool, workspace, and so on.
pub const NAME_BYTES_MAX: usize = 63;
/// A reason that a user gives for a cancel, hold or drain.
pub const REASON_BYTES_MAX: usize = 512;
/// The canonical text of one job spec.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;
/// A job file as it comes in, before it is parsed.
pub const JOB_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of mappings and lists in a job file.
pub const JOB_FILE_DEPTH_MAX: usize = 16;
/// Scalars, lists and mappings of a job file.
pub const JOB_FILE_NODES_MAX: usize = 50_000;
/// Problems that are reported for one job file; the rest is counted.
pub const JOB_FILE_PROBLEMS_MAX: usize = 100;

// --- Jobs -----------------------------------------------------------------------------------

/// Tasks of one array.
pub const ARRAY_TASKS_MAX: u32 = 1_000_000;
/// Groups of one task.
pub const GROUPS_MAX: usize = 16;
/// Nodes of one gang, over all groups.
pub const GANG_NODES_MAX: u32 = 10_000;
/// Ranks of one group on one node.
pub const RANKS_PER_NODE_MAX: u32 = 1_024;
/// GPU devices of one node, MIG instances counted.
pub const NODE_DEVICES_MAX: usize = 128;
/// GPU models that a request may list.
pub const GPU_MODELS_MAX: usize = 16;
/// Jobs that one job may wait for.
pub const DEPENDENCIES_MAX: usize = 64;
/// Jobs that may wait for one job.
pub const DEPENDENTS_MAX: usize = 10_000;
/// Arrays that may wait for one array index by index; each costs work at every exit of it.
pub const EACH_DEPENDENTS_MAX: usize = 16;
/// Rules of `retry.on`; each has a counter in every task.
pub const RETRY_RULES_MAX: usize = 8;
/// Retries that one budget can allow.
pub const RETRIES_MAX: u16 = 10_000;
/// Labels of a job or node, and nodes named by one constraint.
pub const LABELS_MAX: usize = 64;
/// Nodes that `exclude_nodes` or `only_nodes` may name.
pub const NODE_LIST_MAX: usize = 1_024;
/// Rows of `array.each`. More do not fit into a spec anyway, whatever they hold.
pub const EACH_ROWS_MAX: usize = 20_000;
/// Entries of `env`, `secrets`, `inputs`, `outputs`, `mounts`, each.
pub const SPEC_ENTRIES_MAX: usize = 512;
/// Priority of a job, from minus this to plus this.
pub const PRIORITY_ABS_MAX: i32 = 1_000;
/// Longest time limit, delay, grace or lease of any kind, in milliseconds: 400 days.
pub const DURATION_MS_MAX: u64 = 400 * 24 * 3_600 * 1_000;
/// Tasks of one chain.
pub const CHAIN_TASKS_MAX: u32 = 256;
/// Jobs of the whole cluster, ended ones included.
pub const JOBS_MAX: u64 = 10_000_000;

// --- Cluster --------------------------------------------------------------------------------

/// Nodes of the cluster.
pub const NODES_MAX: usize = 20_000;
/// Pools, queues, workspaces, each.
pub const HOLDERS_MAX: usize = 10_000;
/// Assignments that one node holds at a time, those on their way out included.
pub const NODE_ASSIGNMENTS_MAX: usize = 1_024;
/// Different jobs whose attempts fail in a row by a node's fault until it is cordoned.
pub const NODE_FAILURES_MAX: usize = 2;
/// How long such a failure counts, in milliseconds: 10 minutes.
pub const NODE_FAILURE_WINDOW_MS: u64 = 10 * 60 * 1_000;
/// Voting members of the coordinator.
pub const VOTERS_MAX: usize = 9;
/// How long a job that tolerates silence is left alone, in milliseconds: 6 hours.
pub const TOLERANCE_MS: u64 = 6 * 3_600 * 1_000;
/// Lease of a node unless its pool has another, in milliseconds.
pub const LEASE_MS: u64 = 3_000;
/// Reports of one agent that wait for the coordinator; beyond it nothing new is prepared. What is
/// already there goes on: it adds a bounded number.
pub const AGENT_OUTBOX_MAX: usize = 16_384;
/// Reports that an agent sends before the first of them is acknowledged.
pub const AGENT_SENDS_MAX: u64 = 256;
/// CPUs of one node, in thousandths.
pub const NODE_CPU_MILLI_MAX: u64 = 4_096_000;
/// Memory and disk of one node in bytes, each: 16 PiB.
pub const NODE_BYTES_MAX: u64 = 16 << 50;
/// A label, address, version, UUID or model that a node tells.
pub const LABEL_BYTES_MAX: usize = 253;
/// Users.
pub const PRINCIPALS_MAX: usize = 100_000;
/// Role grants of one user.
pub const GRANTS_MAX: usize = 256;
/// Join and login tokens that are not used yet.
pub const TOKENS_MAX: usize = 100_000;
/// Life of a token in milliseconds: one hour.
pub const TOKEN_LIFE_MS_MAX: u64 = 3_600 * 1_000;
/// Serial number of a certificate (RFC 5280, 4.1.2.2).
pub const SERIAL_BYTES_MAX: usize = 20;
/// Revoked identities.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Settings, secrets and volumes, each.
pub const DEFINITIONS_MAX: usize = 100_000;
/// A setting's value, a volume definition.
pub const DEFINITION_BYTES_MAX: usize = 64 * 1024;
/// Ciphertext of one secret.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// Experiments of the cluster.
pub const EXPERIMENTS_MAX: usize = 1_000_000;

// --- One command ----------------------------------------------------------------------------

/// Placements of one plan; the next round goes on from there.
pub const PLAN_PLACEMENTS_MAX: usize = 4_096;
/// Ranges of one report of an agent.
pub const REPORT_RANGES_MAX: usize = 1_024;
/// Timers that one command lets fire; the rest fires with the next.
pub const TIMERS_PER_APPLY_MAX: usize = 1_024;
/// Ended jobs that one command forgets.
pub const FORGET_PER_APPLY_MAX: usize = 256;
/// Records that one command adds to the rolling digest.
pub const DIGEST_RECORDS_PER_APPLY: usize = 1;

// --- Replicated log -------------------------------------------------------------------------

/// Commands that wait to be proposed; beyond it callers are told to come back.
pub const PROPOSALS_MAX: usize = 4_096;
/// Bytes of those, in KiB; beyond it callers are told to come back.
pub const PROPOSALS_KIB_MAX: u32 = 64 * 1024;
/// Bytes of one command in the log; a larger one is refused.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Commands of one entry; the rest goes into the next.
pub const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of the commands of one entry, unless a single one is larger; the rest goes into the next.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Entries that a leader has on their way; what comes meanwhile gathers for the next.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// Reads that wait for one confirmation of the leader; beyond it callers are told to come back.
pub const READS_WAITING_MAX: usize = 65_536;
/// Writes of the log that wait for the disk; beyond it whoever writes waits.
pub const LOG_JOBS_MAX: usize = 1_024;
/// Bytes of entries that share a flush; the rest goes with the next.
pub const LOG_FLUSH_BYTES_MAX: usize = 8 << 20;
/// Bytes of one file of the log; then the next one begins.
pub const LOG_SEGMENT_BYTES: u64 = 16 << 20;
/// Bytes by which a file of the log grows ahead of what is written.
pub const LOG_GROW_BYTES: u64 = 1 << 20;
/// Bytes of a file that is kept for the log of a member whose disk is full; then the member takes
/// nothing any more.
pub const LOG_RESERVE_BYTES: u64 = 16 << 20;
/// Bytes of the last file of the log that a member with a full disk keeps for its votes.
pub const LOG_LAST_BYTES: u64 = 256 << 10;
/// Bytes of the latest entries kept in memory; older ones are read from the disk.
pub const LOG_CACHE_BYTES_MAX: usize = 32 << 20;
/// Bytes of the log after which a snapshot is taken, unless the last snapshot is larger.
pub const LOG_SNAPSHOT_BYTES: u64 = 64 << 20;
/// Entries kept behind a snapshot, for members that are a little late.
pub const LOG_KEPT_ENTRIES: u64 = 1_000;
/// Bytes of entries read at a time, and sent in one message, unless a single one is larger.
pub const ENTRIES_READ_BYTES_MAX: usize = 1 << 20;
/// Bytes of a snapshot that are written, checked and sent as one piece.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Bytes of one message between members.
pub const MEMBER_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of the file of promises beyond those that it begins with; then it is written anew.
pub const PROMISES_ROOM_BYTES: u64 = 64 << 10;
/// Entries of which a member remembers what came of them, to compare it with the others.
pub const OPINIONS_KEPT_MAX: usize = 16_384;
/// Slices of the state that are hashed in one go; the rest is hashed in turn.
pub const SLICES_PER_SCAN_MAX: u16 = 4;
/// Scans of slices that a member remembers, to compare them with those of the others.
pub const SCANS_KEPT_MAX: usize = 4;
/// Entries that a subscriber may be behind; beyond it the subscriber reads the state again.
pub const OUTCOMES_MAX: usize = 4_096;

// --- Memory and time ------------------------------------------------------------------------

/// Remembered requests that made no job.
pub const DEDUP_ENTRIES_MAX: usize = 100_000;
/// How long those are remembered, in milliseconds: 10 minutes.
pub const DEDUP_LIFE_MS: u64 = 10 * 60 * 1_000;
/// Ended jobs in the state; the oldest leave first.
pub const ENDED_JOBS_MAX: usize = 100_000;
/// How long an ended job stays in the state, in milliseconds: 30 days.
pub const ENDED_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Rows of the usage roll-up: (day, owner, queue, model). The oldest days leave first.
pub const USAGE_ROWS_MAX: usize = 1_000_000;
/// A maintenance lease of a node, in milliseconds: 10 minutes.
pub const MAINTENANCE_MS_MAX: u64 = 10 * 60 * 1_000;
/// How long an agent may take until an assignment is ready beyond the job's own
/// `prepare_timeout`, in milliseconds.
pub const BARRIER_SLACK_MS: u64 = 60 * 1_000;

// --- Machines -------------------------------------------------------------------------------

/// One message between an agent and a shim; a longer one ends the connection.
pub const SHIM_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that wait to be sent to one peer of a shim; beyond it the peer is dropped, and finds the
/// present state when it comes back.
pub const SHIM_BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Processes that stand by on a node to be the shims of its next assignments.
pub const SHIMS_READY: usize = 4;
/// The path of a shim's directory.
pub const SHIM_PATH_BYTES_MAX: usize = 4_096;
/// Tasks of a chain that may start ahead of what is on disk. After a loss of power this many
/// count as started beyond the last one that is known to have ended.
pub const SHIM_STARTS_AHEAD: u32 = 32;
/// How long starts and ends of tasks may wait to be told together, in milliseconds. An end after
/// which nothing starts waits for nothing.
pub const SHIM_HOLD_MS: u64 = 20;
/// How long an exit may wait for the agent to make it durable, in milliseconds; then the shim
/// flushes its record itself.
pub const SHIM_FLUSH_MS: u64 = 25;
/// How long ranks of a node may go on after one of them failed, in milliseconds, if the job's own
/// grace is not shorter.
pub const SIBLING_GRACE_MS: u64 = 5_000;
/// Programs that other nodes of a gang may start at a time in one assignment.
pub const HELPERS_MAX: usize = 1_024;
/// Words of one such program.
pub const HELPER_WORDS_MAX: usize = 1_024;
/// One record in a file of the agent or a shim; a longer one is damage.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// A file of shim records as it is read back.
pub const SHIM_RECORD_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an agent's log may hold beyond its last compaction before it is written anew.
pub const AGENT_LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The details of one assignment, its job's spec included.
pub const DETAIL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests to an agent's driver that wait; the sender waits beyond it.
pub const DRIVER_QUEUE_LEN_MAX: usize = 64;
/// Bytes of one read from the output of a rank.
pub const LOG_READ_BYTES_MAX: usize = 256 * 1024;
/// Streams of one attempt on one node that a listing names.
pub const LOG_STREAMS_MAX: usize = 2 * RANKS_PER_NODE_MAX as usize + 8;
/// Machines that an answer names which could not be asked.
pub const MISSING_NODES_MAX: usize = 100;
/// Accounts with the rights of root that a node may name for its jobs.
pub const ROOT_LOGINS_MAX: usize = 16;
/// Addresses that a node may keep its jobs from. The programs that do so grow with them.
pub const REFUSED_ADDRESSES_MAX: usize = 64;
/// Processes and threads that an assignment may have at the least, if its job does not say.
pub const ASSIGNMENT_PIDS_MIN: u32 = 1_024;
/// How long processes may take to end once they are killed, in milliseconds, until people are told.
pub const STUCK_MS: u64 = 5_000;
/// The longest pause between two looks at processes that are being killed, in milliseconds.
pub const KILL_LOOK_MS_MAX: u64 = 500;
/// The least part of a node's disk that is free when something new comes, in hundredths. With less
/// it refuses.
pub const DISK_RESERVE_PERCENT: u32 = 5;
/// How often the disk that jobs with a bound use is measured, in milliseconds, if that is quick.
pub const DISK_LOOK_MS: u64 = 2_000;
/// What an entry of a directory counts at the least: one without bytes takes room too.
pub const DISK_ENTRY_BYTES: u64 = 512;
/// How deep the directories of a job may lie that has a bound; a deeper tree is beyond it.
pub const DISK_DEPTH_MAX: usize = 256;
/// How long NVML may take to answer, in milliseconds; then its GPUs count as not answering.
pub const GPU_PROBE_MS: u64 = 10_000;

// --- Output of ranks --------------------------------------------------------------------------

/// How much of its disk a node may have used, in percent, before output of ended jobs goes, the
/// oldest first.
pub const LOG_DISK_PERCENT_MAX: u64 = 80;
/// What such output may take of the disk in any case, in percent.
pub const LOG_SPARED_PERCENT: u64 = 1;
/// Attempts whose output is chosen at a time to be removed; then the next ones are looked for.
pub const LOGS_REMOVED_MAX: usize = 4_096;
/// The least that a file of a rank may hold; what a job asks for below it is not kept to.
pub const LOG_BOUND_BYTES_LEAST: u64 = 64 * 1024;
/// Assignments that were let go, and whose output was not looked at since; the oldest are not.
pub const RELEASED_MAX: usize = 1_024;
/// Marks of when bytes of a stream were written; of the older ones some go beyond it.
pub const LOG_MARKS_MAX: usize = 4_096;
/// Members that keep a copy of a job's output.
pub const LOG_COPIES: usize = 2;
/// Bytes at the beginning of a stream that are copied.
pub const LOG_COPY_HEAD_BYTES: u64 = 256 * 1024;
/// Bytes at the end of a stream that are copied; what is between is left out.
pub const LOG_COPY_TAIL_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that an agent sends to a member in one round of copies, which are two seconds apart; the
/// rest goes with the next.
pub const LOG_COPY_ROUND_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of one message of copies.
pub const LOG_COPY_BYTES_MAX: usize = 1024 * 1024;
/// Pieces in one message of copies; a member takes no more.
pub const LOG_COPY_PIECES_MAX: usize = 1_024;
/// Attempts that have ended and whose output is still to be copied; further ones are not.
pub const LOG_COPY_ENDING_MAX: usize = 1_024;
/// Bytes of copies that a member keeps; the oldest go.
pub const LOG_COPIES_BYTES_MAX: u64 = 4 << 30;
/// Streams of which a member keeps copies; the oldest go.
pub const LOG_COPIES_STREAMS_MAX: usize = 50_000;
/// Bytes that copies leave free on a member's disk; below that none are taken, and the oldest go.
pub const LOG_COPIES_SPARED_BYTES: u64 = 1 << 30;
/// How long a member keeps a copy after it was written last, in milliseconds: 14 days.
pub const LOG_COPIES_LIFE_MS: u64 = 14 * 24 * 3_600 * 1_000;

// --- Output in a directory of the user's -----------------------------------------------------

/// Bytes that a rank may be ahead of the directory that its output is delivered to, beyond what it
/// may have on the node anyway; then some are left out there, which a line says.
pub const DELIVERY_LAG_BYTES_MAX: u64 = 256 << 20;
/// Attempts that have ended, and whose output is still to be delivered, at a time; others wait.
pub const DELIVERY_ENDING_MAX: usize = 16_384;
/// Files that one process that delivers has open; it closes those that it used longest ago.
pub const DELIVERY_FILES_MAX: usize = 64;
/// What a process that delivers writes at a time. It is on the share before there is more: so much
/// of what a share that hangs has not taken is in the memory of the node.
pub const DELIVERY_PIECE_BYTES_MAX: usize = 4 * LOG_READ_BYTES_MAX;
/// A message to a process that delivers.
pub const DELIVERY_MESSAGE_BYTES_MAX: usize = DELIVERY_PIECE_BYTES_MAX + 16 * 1024;
/// What is noted of a delivery on the node.
pub const DELIVERY_NOTE_BYTES_MAX: usize = 64 * 1024;
/// How long it may take to make the directory of a job's output, in milliseconds; then the attempt
/// fails.
pub const DELIVERY_DIR_MS: u64 = 30 * 1_000;
/// How long a delivery may stand still, in milliseconds, until people are told.
pub const DELIVERY_STILL_MS: u64 = 30 * 1_000;

// --- Health of machines -----------------------------------------------------------------------

/// Conditions of one node: some for each device, and those of the machine.
pub const CONDITIONS_MAX: usize = 4 * NODE_DEVICES_MAX + 16;
/// What one condition says about itself.
pub const CONDITION_BYTES_MAX: usize = 253;
/// GPUs of one node that operators hold back.
pub const HELD_BACK_MAX: usize = NODE_DEVICES_MAX;
/// How long a node is cordoned, in milliseconds, until it may come back by a clean check: 10
/// minutes. Doubles with each cordon that no success came between.
pub const CORDON_MS: u64 = 10 * 60 * 1_000;
/// How often it doubles.
pub const CORDON_DOUBLINGS_MAX: u32 = 6;
/// Faults of GPUs that an agent remembers; the oldest are forgotten first.
pub const GPU_FAULTS_MAX: usize = 1_024;
/// How long a fault of a GPU counts, in milliseconds: a day.
pub const GPU_FAULT_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Rules for XIDs that a configuration may have of its own.
pub const XID_RULES_MAX: usize = 256;
/// How long a check before a job may take in milliseconds; one that takes longer has failed.
pub const CHECK_MS: u64 = 10_000;
/// How long a good answer of a configured check counts, in milliseconds; and for how long one check
/// after a failure does for all further failures.
pub const CHECK_GOOD_MS: u64 = 5_000;
/// Output of a configured check that is kept.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 1_024;
/// Words of the command of a configured check.
pub const CHECK_WORDS_MAX: usize = 64;
/// Messages about GPUs that wait to be looked at; the kernel repeats what matters.
pub const GPU_EVENTS_MAX: usize = 256;
/// How far a machine's clock may be from the coordinator's until that is told, in milliseconds.
pub const CLOCK_OFF_MS: u64 = 10_000;
/// What a node tells about itself beyond what is replicated; more is not kept.
pub const FACTS_BYTES_MAX: usize = 256 * 1024;
/// Network interfaces of a machine that are told; the others are left out.
pub const NETWORKS_MAX: usize = 64;
/// Disks of a machine that are told; the others are left out.
pub const DISKS_MAX: usize = 64;
/// Assignments with processes that do not end, of which a node tells; the others are left out.
pub const STUCK_TOLD_MAX: usize = 32;
/// Attempts whose output is late at the directory of their job, of which a node tells; the others
/// are left out.
pub const LATE_TOLD_MAX: usize = 32;
/// Processes of one GPU that are told.
pub const GPU_PROCESSES_MAX: usize = 64;

// --- The setup of a pool ----------------------------------------------------------------------

/// Text of the setup of a pool.
pub const SETUP_BYTES_MAX: usize = 16 * 1024;
/// Variables that it gets of its own.
pub const SETUP_VARIABLES_MAX: usize = 32;
/// Name and value of one of them.
pub const SETUP_VARIABLE_BYTES_MAX: usize = 1_024;
/// How long it may take, in milliseconds: at least.
pub const SETUP_MS_MIN: u64 = 1_000;
/// At most: a day.
pub const SETUP_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Unless somebody says otherwise: 15 minutes.
pub const SETUP_MS: u64 = 15 * 60 * 1_000;
/// Output of one run of it that a node keeps; what was written first goes first.
pub const SETUP_LOG_BYTES_MAX: u64 = 1024 * 1024;
/// Runs of it of which a node keeps the output.
pub const SETUP_LOGS_MAX: u32 = 4;
/// The first pause after a failure, in milliseconds; it doubles with each further one.
pub const SETUP_PAUSE_MS: u64 = 60_000;
/// The longest: 16 minutes.
pub const SETUP_PAUSE_MS_MAX: u64 = 16 * 60_000;
/// How long what a failed run left is killed until that is given up, in milliseconds.
pub const SETUP_KILL_MS: u64 = 10_000;

// --- An agent and its coordinator -------------------------------------------------------------

/// Members that an agent knows, those without a vote included; it takes no longer list.
pub const MEMBERS_MAX: usize = 32;
/// Reports in one message of an agent; the next ones go with the next.
pub const REPORTS_PER_BATCH_MAX: usize = 64;
/// Details that may come ahead of their desired set; a stream that brings more is ended.
pub const DETAILS_AHEAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages of one stream that wait to be sent; what makes them waits beyond it.
pub const STREAM_QUEUE_LEN_MAX: usize = 8;
/// Questions for logs and files that an agent answers at a time; further ones are not heard.
pub const DATA_CALLS_MAX: usize = 64;
/// Assignments of which a node keeps samples.
pub const SAMPLED_MAX: usize = 4_096;
/// Machines that are asked for samples at once, and samples of one answer.
pub const SAMPLE_NODES_MAX: usize = 256;
/// See [`SAMPLE_NODES_MAX`].
pub const SAMPLES_MAX: usize = 10_000;
/// Jobs that are named when samples are asked for.
pub const SAMPLE_JOBS_MAX: usize = 1_000;
/// Programs that people run at a time beside the ranks of one assignment; further ones are refused.
pub const VISITS_MAX: usize = 16;
/// Words of one such program, and the bytes of all of them.
pub const VISIT_WORDS_MAX: usize = 1_024;
/// See [`VISIT_WORDS_MAX`].
pub const VISIT_WORDS_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one message with what such a program reads or writes, or what goes to a port.
pub const VISIT_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a visitor may send ahead of what the program or the port takes. It fits what a
/// connection holds on its way, so that the end of a visit never waits behind them.
pub const VISIT_WINDOW_BYTES: usize = 1 << 20;
/// Columns and rows of a terminal.
pub const TERMINAL_SIZE_MAX: u32 = 10_000;
/// Bytes of the name of a kind of terminal.
pub const TERMINAL_NAME_BYTES_MAX: usize = 64;
/// Entries of a directory that one answer lists; whoever wants more asks on.
pub const FILE_ENTRIES_MAX: usize = 1_000;
/// Entries of a directory that are looked at for that; a larger one is not listed.
pub const FILE_ENTRIES_SCAN_MAX: usize = 1_000_000;
/// A path below an attempt's directory.
pub const FILE_PATH_BYTES_MAX: usize = 4_096;
/// Files and directories that one copy of a directory brings; a larger one is brought in parts.
pub const FILES_COPIED_MAX: usize = 100_000;
/// How deep such a directory may be.
pub const FILES_DEPTH_MAX: usize = 128;
/// How far back the last lines of a stream are looked for.
pub const TAIL_BYTES_MAX: u64 = 16 * 1024 * 1024;

// --- Connections and files ------------------------------------------------------------------

/// TLS handshakes in progress at one listener; a new one drops the oldest.
pub const HANDSHAKES_MAX: usize = 1_024;
/// How long a TLS handshake may take, in milliseconds.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Connections of one listener whose peers are known; further ones are closed.
pub const CONNECTIONS_MAX: usize = 40_000;
/// Connections of one listener whose peers have shown no certificate; further ones are closed.
pub const STRANGERS_MAX: usize = 256;
/// How long a connection without a client certificate may last, in milliseconds: long enough to
/// join or to log in.
pub const STRANGER_MS: u64 = 30_000;
/// A request for a certificate.
pub const CSR_BYTES_MAX: usize = 8 * 1024;
/// A request of somebody whom only a token in it can introduce.
pub const STRANGER_BYTES_MAX: usize = SMALL_PAYLOAD_BYTES_MAX + CSR_BYTES_MAX + 8 * 1024;
/// Calls at a time on a connection whose peer has shown no certificate; further ones are refused.
pub const STRANGER_CALLS_MAX: usize = 2;
/// How long such a call may take, in milliseconds.
pub const STRANGER_CALL_MS: u64 = 15_000;
/// A file of certificates and keys.
pub const PEM_FILE_BYTES_MAX: usize = 64 * 1024;
/// A configuration file of a daemon, or the contexts of a user.
pub const CONFIG_FILE_BYTES_MAX: usize = 256 * 1024;
/// Problems that are reported for one configuration file.
pub const CONFIG_PROBLEMS_MAX: usize = 100;

// --- Wire -----------------------------------------------------------------------------------

/// One message between agents and members.
pub const INTERNAL_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What such a message carries of the core's own types: a desired set, reports, a command.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same for what is small by nature: leases, fences, an inventory.
pub const SMALL_PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Rows of one page of a list; whoever asks for more gets as many.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Runs of a job's tasks that a row of a list is summed up from; the rest is not looked at.
pub const SUMMARY_RUNS_MAX: usize = 1_000;
/// Shapes of queued jobs on one page that are held against the machines; jobs of further ones get
/// no reason.
pub const SHAPES_JUDGED_MAX: usize = 64;
/// Nodes that a row of a list names; the rest is counted.
pub const SUMMARY_NODES_MAX: usize = 8;
/// Details of a refusal, which travel in the trailer of a response; problems past it are counted.
pub const STATUS_DETAILS_BYTES_MAX: usize = 32 * 1024;

// --- Members ----------------------------------------------------------------------------------

/// One message of the public API to a member: a job file, and what goes with it.
pub const PUBLIC_BYTES_MAX: usize = JOB_FILE_BYTES_MAX + 64 * 1024;
/// One message of an agent to a member, with what is around its payload.
pub const INTERNAL_FRAME_BYTES_MAX: usize = INTERNAL_MESSAGE_BYTES_MAX + 64 * 1024;
/// One message between members, with what is around its payload.
pub const MEMBER_FRAME_BYTES_MAX: usize = MEMBER_MESSAGE_BYTES_MAX + 64 * 1024;
/// Headers of one request.
pub const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Calls of one connection at a time; further ones wait at the client.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Entries of the log that a member may lack to be let vote: it has them within a moment.
pub const MEMBER_LAG_ENTRIES_MAX: u64 = 1_000;
/// Tries to find out what came of a command, while the leader changes.
pub const FORWARD_TRIES_MAX: usize = 32;
/// Batches of promises that wait for the disk; the next one waits in its sweep.
pub const PROMISE_BATCHES_MAX: usize = 16;
/// Batches of reports of one node that are being committed; what comes meanwhile goes with the
/// next.
pub const REPORT_BATCHES_MAX: usize = 4;
/// Tickets for data streams that no agent has shown yet; further questions are refused.
pub const TICKETS_MAX: usize = 4_096;
/// How long such a ticket is good, in milliseconds.
pub const TICKET_LIFE_MS: u64 = 30 * 1_000;
/// How long an agent may say nothing on its control stream, in milliseconds; then it is ended.
pub const SESSION_SILENT_MS: u64 = 15 * 1_000;
/// Latest events that a member keeps for watches; older ones can be watched no more.
pub const EVENTS_KEPT_MAX: usize = 65_536;
/// Events that a watch takes at a time, unless one position of the log has more.
pub const WATCH_EVENTS_MAX: usize = 256;
/// Jobs that one watch may name.
pub const WATCH_JOBS_MAX: usize = 1_000;
/// Allocations of which a member remembers where they ran and how they ended; the oldest go first.
pub const ATTEMPTS_KEPT_MAX: usize = 50_000;
/// The file in which a member writes that down; of what would be longer the oldest are left out.
pub const ATTEMPTS_BOOK_BYTES_MAX: u64 = 64 << 20;
/// Bytes of what a member tells another of that at once; one allocation more may be in it.
pub const ATTEMPTS_PAGE_BYTES: usize = 1 << 20;
/// Bytes that this file leaves free on a member's disk; below that nothing is written to it.
pub const ATTEMPTS_SPARED_BYTES: u64 = 256 << 20;
/// Jobs that are looked at for one page of a list; the page then ends early.
pub const LIST_SCAN_MAX: usize = 100_000;
/// Plays of the scheduler at a time, to explain a job or to try one out; further ones are refused.
pub const EXPLAINS_MAX: usize = 2;
/// Lines at the end of a failed rank's stderr that an explanation shows.
pub const FAILURE_TAIL_LINES: u32 = 20;
/// Bytes of them; the latest are kept.
pub const FAILURE_TAIL_BYTES_MAX: usize = 16 * 1024;
/// Ranks whose logs are read in one call.
pub const LOG_RANKS_MAX: usize = 4_096;
/// Work of one round of the scheduler: jobs and nodes looked at. The next round goes on from there.
pub const PLAN_WORK_MAX: u64 = 4_000_000;

// --- Backups and restores ---------------------------------------------------------------------

/// Backups that a member writes at a time; further ones are refused.
pub const BACKUPS_MAX: usize = 1;
/// Pieces of a backup that wait for whoever reads it.
pub const BACKUP_PIECES_MAX: usize = 2;
/// Bytes of a part of a backup that is no piece of the state: its head, the keys.
pub const BACKUP_PART_BYTES_MAX: usize = 256 * 1024;
/// Numbers of jobs that a restore leaves out at least, and for each second since the backup: those
/// that were given out meanwhile are not given out again.
pub const RESTORE_JOBS_LEAST: u64 = 1_000_000;
/// See [`RESTORE_JOBS_LEAST`].
pub const RESTORE_JOBS_PER_S: u64 = 10_000;
/// The same for users and nodes: their certificates go on being believed.
pub const RESTORE_IDS_LEAST: u64 = 10_000;
/// See [`RESTORE_IDS_LEAST`].
pub const RESTORE_IDS_PER_S: u64 = 4;
/// The most ids of nodes that one restore leaves out: tables of nodes are kept by id.
pub const RESTORE_NODES_MAX: u64 = 1 << 20;
/// The most ids of users that one restore leaves out: eight years of seconds.
pub const RESTORE_USERS_MAX: u64 = 1 << 30;

// --- Silence of attempts ----------------------------------------------------------------------

/// Time between two looks at an assignment that counts as silence, at most: what nobody saw, since
/// the machine slept or its agent was away, is none.
pub const STALL_GAP_MS_MAX: u64 = 10_000;
/// Between two warnings of one assignment at least: each is an entry of the log.
pub const STALL_AGAIN_MS: u64 = 60_000;
/// How much later an attempt that was to end for its silence is looked at again, if a machine of it
/// is out of touch just then.
pub const STALL_DEFER_MS: u64 = 10_000;
/// Of a CPU, what a rank may use and be silent, in thousandths.
pub const STALL_CPU_MILLI: u64 = 10;
/// Bytes that a rank may read and write, or send and get, each second, and be silent.
pub const STALL_BYTES_PER_S: u64 = 1_024;
/// Ranks that are named as those which differ from the others.
pub const STALL_ODD_MAX: usize = 8;
/// Connections of a machine, and files of an assignment, that are looked at for their bytes.
pub const STALL_SOCKETS_MAX: usize = 262_144;

// --- What people are told ----------------------------------------------------------------------

/// Requests that ended tasks, of which a job remembers who made them, and why.
pub const CANCELS_KEPT_MAX: usize = 8;

// --- Relations ------------------------------------------------------------------------------

const _: () = assert!(SPEC_BYTES_MAX <= JOB_FILE_BYTES_MAX);
const _: () = assert!(2 * EACH_ROWS_MAX < JOB_FILE_NODES_MAX, "a spec of short rows reads back");
const _: () = assert!(EACH_ROWS_MAX < ARRAY_TASKS_MAX as usize);
const _: () = assert!(NODE_DEVICES_MAX <= 128, "DeviceSet holds 128 devices");
const _: () = assert!(GANG_NODES_MAX as usize <= NODES_MAX);
const _: () = assert!(EACH_DEPENDENTS_MAX <= DEPENDENTS_MAX);
const _: () = assert!(CHAIN_TASKS_MAX <= ARRAY_TASKS_MAX);
const _: () = assert!(REPORT_RANGES_MAX >= CHAIN_TASKS_MAX as usize, "one report ends a chain");
const _: () = assert!(DEDUP_LIFE_MS < ENDED_LIFE_MS);
const _: () = assert!(ENDED_JOBS_MAX as u64 <= JOBS_MAX);
const _: () = assert!(SPEC_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX as u64 <= PROPOSALS_KIB_MAX as u64 * 1024);
const _: () = assert!(ENTRIES_READ_BYTES_MAX + 2 * COMMAND_BYTES_MAX < MEMBER_MESSAGE_BYTES_MAX);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES < MEMBER_MESSAGE_BYTES_MAX);
const _: () = assert!(VOTERS_MAX <= MEMBERS_MAX);
const _: () = assert!(LOG_LAST_BYTES < LOG_GROW_BYTES && LOG_LAST_BYTES < LOG_RESERVE_BYTES);
const _: () = assert!(LEASE_MS < TOLERANCE_MS);
const _: () = assert!(SPEC_BYTES_MAX < DETAIL_BYTES_MAX);
const _: () = assert!(SHIM_MESSAGE_BYTES_MAX < SHIM_BACKLOG_BYTES_MAX);
const _: () = assert!(SHIM_HOLD_MS < SHIM_FLUSH_MS);
const _: () = assert!(LOG_COPY_HEAD_BYTES + LOG_COPY_TAIL_BYTES <= LOG_COPY_ROUND_BYTES);
const _: () = assert!(LOG_COPY_BYTES_MAX + LOG_READ_BYTES_MAX < INTERNAL_MESSAGE_BYTES_MAX);

const _: () = assert!(MEMBER_MESSAGE_BYTES_MAX >= INTERNAL_MESSAGE_BYTES_MAX);
const _: () = assert!(HANDSHAKE_MS < STRANGER_MS);
const _: () = assert!(STRANGER_CALL_MS < STRANGER_MS);
const _: () = assert!(STRANGER_BYTES_MAX < PUBLIC_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX < INTERNAL_MESSAGE_BYTES_MAX);
const _: () = assert!(SPEC_BYTES_MAX < PAYLOAD_BYTES_MAX, "a job fits a forwarded command");

const _: () = assert!(
    SETUP_BYTES_MAX + SETUP_VARIABLES_MAX * SETUP_VARIABLE_BYTES_MAX < SMALL_PAYLOAD_BYTES_MAX / 2
);
const _: () = assert!(SETUP_MS_MIN <= SETUP_MS && SETUP_MS <= SETUP_MS_MAX);
const _: () = assert!(STALL_GAP_MS_MAX < STALL_AGAIN_MS);
const _: () = assert!(4 * VISIT_CHUNK_BYTES_MAX <= VISIT_WINDOW_BYTES, "grants come in quarters");
const _: () = assert!(GPU_PARTS_FIT, "parts of all devices of a node fit 32 bits");
const GPU_PARTS_FIT: bool = NODE_DEVICES_MAX * (crate::gpu::GPU_PARTS as usize) < u32::MAX as usize;
