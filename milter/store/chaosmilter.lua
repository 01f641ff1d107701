#!lua name=chaosmilter
-- SPDX-License-Identifier: BSD-2-Clause
--
-- The only writer of documents. One call checks the revision, takes the next
-- sequence number, writes the document, its index entry and one entry of the
-- change log, or nothing at all.
--
-- Redis 7:  redis-cli -x FUNCTION LOAD REPLACE < chaosmilter.lua
--           redis-cli FCALL cm_set 0 inbox a@example.com '{"enabled":true}'
-- Redis 6:  sha=$(tail -n +2 chaosmilter.lua | redis-cli -x SCRIPT LOAD)
--           redis-cli EVALSHA $sha 0 set inbox a@example.com '{"enabled":true}'
--
--   cm_set   kind name document [revision] [actor] [place]
--   cm_get   kind name
--   cm_del   kind name [revision] [actor]
--   cm_list  kind [prefix] [after] [limit]
--   cm_read  kind [after] [begin] [limit]
--   cm_seq
--   cm_batch actor change ..
--   cm_wipe  actor kind begin ..     all of a kind whose names begin so
--   cm_halt  [reason] [actor]     nothing is hurt any more, on any host
--   cm_resume [actor]
--   cm_halted                    the flag as it is
--
-- A change is one of
--   set  kind name revision place document
--   del  kind name revision
--   move kind name revision place
--   at   kind number
--
-- kind is inbox, rule, fault, trigger, effect or box. revision is * (any), 0
-- (only if there is nothing yet) or the number that must be there. place, for
-- rules and faults, is a number that orders them; * leaves it as it is, or is
-- the end for a new one. `move` changes the place alone, and so no revision.
-- `at` changes nothing: it demands that the last change
-- of anything of that kind was this number (0: there was none), which cm_read
-- tells. Errors begin with CMINVALID (the call is wrong) or CMCONFLICT (the
-- revision is another one); those of a batch name the change, the first is 1.
--
-- What may be wrong is looked at before the first write, and the first write is
-- one that Redis refuses when it is out of memory, so nothing is half applied,
-- of a batch no less. Its changes have sequence numbers in a row, and all log
-- entries but the last say `more`, so that a reader puts them in force as one.
--
-- Who changed what is written down by the same call, in the streams audit and,
-- so that a bulk write cannot wash away the rest, audit:inbox.

-- The daemons replace these two by their settings redis.prefix and
-- address.local_part_case when they load this file.
local prefix = '{cm}'
local fold_local = true

local doc_bytes_max = 65536
local log_doc_bytes_max = 4096
local log_entries = 100000
local audit_doc_bytes_max = 4096
local audit_entries = 10000
local audit_inbox_entries = 30000
local place_gap = 65536
local tombstone_ms = 24 * 3600 * 1000
local batch_changes_max = 20000
local batch_bytes_max = 4 * 1024 * 1024
local read_documents_max = 10000
local read_bytes_max = 8 * 1024 * 1024

local function invalid(text)
    return redis.error_reply('CMINVALID ' .. text)
end

local function integer(n)
    return string.format('%.0f', n)
end

local function lower(text)
    return (string.gsub(text, '[A-Z]', string.lower))
end

-- The domain must be in its ASCII form already; what else makes an address
-- canonical is checked by the filter, which reports keys that are not.
local function canonical_address(name)
    local at = #name <= 320 and string.find(name, '@[^@]*$')
    if not at or at == 1 then
        return nil, 'the name must be an address, local@domain'
    end
    local user, domain = string.sub(name, 1, at - 1),
        lower(string.sub(name, at + 1))
    if string.find(name, '[%z\1-\31\127]') then
        return nil, 'the address holds a control character'
    end
    if not string.find(user, '^".*"$') and string.find(user, '[ <>@]') then
        return nil, 'the local part holds a space, "<", ">" or "@"'
    end
    if not string.find(domain, '^%[[%w:.]+%]$')
        and not string.find(domain, '^[%w]$')
        and not string.find(domain, '^[%w_][%w._-]*[%w]$') then
        return nil, 'the domain must be letters, digits, "-" and "." '
            .. '(other scripts in their xn-- form)'
    end
    if fold_local then
        user = lower(user)
    end
    return user .. '@' .. domain
end

local function canonical_rule(name)
    if #name > 64 or not string.find(name, '^[%w][%w._:-]*$') then
        return nil, 'a rule\'s name must be 1 to 64 of A-Z a-z 0-9 . _ : - '
            .. 'and begin with a letter or digit'
    end
    return name
end

-- The names of kinds that have a fixed set of them, in any case.
local function one_of(...)
    local names = { ... }
    return function(name)
        for _, known in ipairs(names) do
            if lower(name) == known then
                return known
            end
        end
        return nil, 'the name must be ' .. table.concat(names, ', ')
    end
end

local kinds = 'inbox, rule, fault, trigger, effect or box'
local canonical = {
    inbox = canonical_address,
    box = canonical_address,
    rule = canonical_rule,
    fault = canonical_rule,
    trigger = one_of('sender', 'recipient', 'authentication'),
    effect = one_of('latency'),
}
local has_place = { rule = true, fault = true }

-- "inbox:a@example.com", or nil and what is wrong.
local function identify(kind, name)
    if not canonical[kind or ''] then
        return nil, 'the kind must be ' .. kinds
    end
    if not name then
        return nil, 'the name is missing'
    end
    local canon, why = canonical[kind](name)
    if not canon then
        return nil, why
    end
    return kind .. ':' .. canon
end

-- nil: any revision will do; else a number; false: not a revision.
local function wanted_revision(text)
    if not text or text == '' or text == '*' or text == '-1' then
        return nil
    end
    if not string.find(text, '^%d+$') or #text > 15 then
        return false
    end
    return tonumber(text)
end

-- nil: none is asked for; false: not a place.
local function wanted_place(kind, text)
    if not text or text == '' or text == '*' then
        return nil
    end
    if not has_place[kind] or not string.find(text, '^[1-9]%d*$')
        or #text > 15 then
        return false
    end
    return text
end

-- What a JSON object may hold outside its strings. cjson is content with NaN
-- and 0x10, the filter is not.
local function strict_numbers(doc)
    local bare = string.gsub(doc, '\\.', '')
    bare = string.gsub(bare, '"[^"]*"', '')
    for _, word in ipairs({ 'true', 'false', 'null' }) do
        bare = string.gsub(bare, word, '')
    end
    return not string.find(bare, '[^%d%s.eE+{}%[%],:-]')
end

-- The document without blanks around it, or nil and what is wrong.
local function check_document(doc)
    if not doc then
        return nil, 'the document is missing'
    end
    if #doc > doc_bytes_max then
        return nil, 'the document has ' .. #doc .. ' bytes, at most '
            .. doc_bytes_max .. ' are allowed'
    end
    if string.find(doc, '[%z\1-\8\11\12\14-\31]') then
        return nil, 'the document holds a control character'
    end
    -- Not '^%s*(.-)%s*$': that takes time by the square of the blanks, and
    -- Redis serves nobody meanwhile.
    local first = string.find(doc, '%S') or 1
    local last = #doc + 1 - (string.find(string.reverse(doc), '%S') or 1)
    doc = string.sub(doc, first, last)
    local ok, why = pcall(cjson.decode, doc)
    if not ok then
        return nil, 'the document is not JSON: ' .. tostring(why)
    end
    if string.sub(doc, 1, 1) ~= '{' then
        return nil, 'the document must be a JSON object'
    end
    if not strict_numbers(doc) then
        return nil, 'the document holds a number that JSON does not know'
    end
    return doc
end

local function milliseconds()
    local time = redis.call('TIME')
    return integer(time[1] * 1000 + math.floor(time[2] / 1000))
end

-- The document in an envelope, and what precedes it.
local function open_envelope(text)
    local head = string.match(text, '^{"rev":%d+,"seq":%d+,.-"doc":')
    if not head or string.sub(text, -1) ~= '}' then
        return nil
    end
    return string.sub(text, #head + 1, -2)
end

-- What is there now. A value of another type counts as there with revision 0,
-- so that it can be overwritten or deleted, but not by accident.
local function current(id)
    local text = redis.pcall('GET', prefix .. ':cfg:' .. id)
    if type(text) == 'table' and text.err then
        if string.find(text.err, 'WRONGTYPE', 1, true) then
            return { there = true, rev = 0, last = 0 }
        end
        return nil, text
    end
    if text then
        local rev = tonumber(string.match(text, '^{"rev":(%d+),') or 0)
        local ord = string.match(text, '^{"rev":%d+,"seq":%d+,"ord":(%d+),')
        return { there = true, rev = rev, last = rev, ord = ord,
            doc = open_envelope(text) }
    end
    -- What cm_wipe removed had no later revision than its number.
    local last = math.max(
        tonumber(redis.call('GET', prefix .. ':tomb:' .. id) or 0) or 0,
        tonumber(redis.call('GET', prefix .. ':floor') or 0) or 0)
    local orphan = redis.call('ZSCORE', prefix .. ':idx', id)
    return {
        there = false,
        orphan = orphan and true or false,
        rev = 0,
        last = last,
    }
end

local function conflict(id, now, want)
    local is = 'is not there'
    if now.there and now.rev > 0 then
        is = 'is at revision ' .. integer(now.rev)
    elseif now.there then
        is = 'is there without a readable revision'
    end
    local wish = want == 0 and 'absent' or 'at revision ' .. integer(want)
    return id .. ' ' .. is .. ', wanted it ' .. wish
end

-- Anybody may have put anything under our names; find out before writing.
local function wrong_type()
    local types = { seq = 'string', epoch = 'string', idx = 'zset',
        log = 'stream', kinds = 'hash', audit = 'stream',
        ['audit:inbox'] = 'stream', floor = 'string' }
    for name, wanted in pairs(types) do
        local found = redis.call('TYPE', prefix .. ':' .. name).ok
        if found ~= 'none' and found ~= wanted then
            return redis.error_reply('WRONGTYPE ' .. prefix .. ':' .. name
                .. ' holds a ' .. found .. ', expected a ' .. wanted)
        end
    end
    return nil
end

local function epoch()
    local now = redis.call('GET', prefix .. ':epoch')
    if now then
        return now
    end
    local time = redis.call('TIME')
    now = redis.sha1hex(time[1] .. '.' .. time[2] .. tostring({})
        .. tostring(function() end) .. math.random())
    redis.call('SET', prefix .. ':epoch', now)
    return now
end

local function log_entry(now, change, seq, actor, more)
    local entry = { prefix .. ':log', 'MAXLEN', '~', log_entries, '*',
        'epoch', now, 'seq', integer(seq),
        'op', change.op == 'move' and 'set' or change.op,
        'key', change.id }
    local function add(name, value)
        entry[#entry + 1] = name
        entry[#entry + 1] = value
    end
    if change.text and #change.text <= log_doc_bytes_max then
        add('doc', change.text)
    end
    if actor and actor ~= '' then
        add('actor', string.sub(actor, 1, 128))
    end
    if more then
        add('more', '1')
    end
    redis.call('XADD', unpack(entry))
end

-- One line of the audit: who did what, to which document, and the document
-- before and after. Of a large one only its size is kept.
local function audit(stream, actor, op, key, fields)
    local entry = { prefix .. ':' .. stream, 'MAXLEN', '~',
        stream == 'audit' and audit_entries or audit_inbox_entries, '*',
        'at', milliseconds(),
        'actor', actor and actor ~= '' and string.sub(actor, 1, 128)
            or 'redis', 'op', op, 'key', key }
    for i = 1, #fields, 2 do
        local name, value = fields[i], fields[i + 1]
        if value and #value > audit_doc_bytes_max then
            name, value = name .. '_bytes', tostring(#value)
        end
        if value then
            entry[#entry + 1] = name
            entry[#entry + 1] = value
        end
    end
    redis.call('XADD', unpack(entry))
end

local audit_stream = { inbox = 'audit:inbox', box = 'audit:inbox' }

local function audit_change(change, seq, actor)
    local fields = { 'seq', integer(seq), 'rev', integer(change.rev),
        'before', change.now.doc or false, 'after', change.doc or false }
    if change.op == 'move' then
        fields = { 'seq', integer(seq), 'rev', integer(change.rev),
            'place_before', change.now.ord or false, 'place', change.ord }
    end
    audit(audit_stream[change.kind] or 'audit', actor, change.op, change.id,
        fields)
end

-- A change is planned before anything is written. Returned is the plan, or nil,
-- the kind of error and what is wrong; an error of Redis's own comes as a
-- table.
local function plan_set(kind, name, doc, revision, place)
    local id, why = identify(kind, name)
    local want, ord = wanted_revision(revision), wanted_place(kind, place)
    if id then
        doc, why = check_document(doc)
    end
    if not id or not doc then
        return nil, 'CMINVALID', why
    end
    if want == false then
        return nil, 'CMINVALID', 'the revision must be *, 0 or a number'
    end
    if ord == false then
        return nil, 'CMINVALID', 'the place must be * or a number, '
            .. 'and only rules and faults have one'
    end
    local now, failed = current(id)
    if failed then
        return nil, failed
    end
    if want and (want ~= now.rev or (want == 0 and now.there)) then
        return nil, 'CMCONFLICT', conflict(id, now, want)
    end
    return { op = 'set', kind = kind, id = id, now = now, doc = doc,
        ord = ord or now.ord }
end

-- No plan and no error: there is nothing to delete.
local function plan_del(kind, name, revision)
    local id, why = identify(kind, name)
    local want = wanted_revision(revision)
    if not id then
        return nil, 'CMINVALID', why
    end
    if want == false then
        return nil, 'CMINVALID', 'the revision must be *, 0 or a number'
    end
    local now, failed = current(id)
    if failed then
        return nil, failed
    end
    if not now.there and not now.orphan then
        return nil
    end
    if want and want ~= now.rev then
        return nil, 'CMCONFLICT', conflict(id, now, want)
    end
    return { op = 'del', kind = kind, id = id, now = now }
end

local function plan_move(kind, name, revision, place)
    local ord = wanted_place(kind, place)
    if not ord then
        return nil, 'CMINVALID', 'the place must be a number, '
            .. 'and only rules and faults have one'
    end
    local change, class, why = plan_del(kind, name, revision)
    if class then
        return nil, class, why
    end
    if not change or not change.now.doc then
        return nil, 'CMCONFLICT', kind .. ':' .. name
            .. ' is not there, or cannot be read'
    end
    change.op, change.ord, change.doc = 'move', ord, change.now.doc
    return change
end

-- The number of the last change of a kind; 0: there was none.
local function last_of(kind)
    return tonumber(redis.call('HGET', prefix .. ':kinds', kind) or 0) or 0
end

-- The place of a new document at the end of its kind: its number, unless
-- somebody has given a place beyond that. The highest place that ever was is
-- kept; it need not be anybody's any more.
local function end_place(kind, seq)
    local last = redis.call('HGET', prefix .. ':kinds', 'end:' .. kind)
    last = tonumber(last or 0) or 0
    return integer(last < seq and seq or last + place_gap)
end

local function note_place(kind, ord)
    local last = redis.call('HGET', prefix .. ':kinds', 'end:' .. kind)
    if tonumber(ord) > (tonumber(last or 0) or 0) then
        redis.call('HSET', prefix .. ':kinds', 'end:' .. kind, ord)
    end
end

local function write_set(change, seq)
    change.rev = change.now.last + (change.op == 'set' and 1 or 0)
    local text = '{"rev":' .. integer(change.rev) .. ',"seq":' .. integer(seq)
    if has_place[change.kind] then
        change.ord = change.ord or end_place(change.kind, seq)
        note_place(change.kind, change.ord)
        text = text .. ',"ord":' .. change.ord
    end
    change.text = text .. ',"doc":' .. change.doc .. '}'
    redis.call('SET', prefix .. ':cfg:' .. change.id, change.text)
    redis.call('ZADD', prefix .. ':idx', 0, change.id)
    if not change.now.there and change.now.last > 0 then
        redis.call('DEL', prefix .. ':tomb:' .. change.id)
    end
end

-- Of rules that go: how often they acted, and what is left of maxHits.
local function forget_hits(names)
    local keys = {}
    for i, name in ipairs(names) do
        keys[i] = prefix .. ':st:hits:' .. name
        redis.pcall('HDEL', prefix .. ':st:rules', name, name .. ' shadow')
    end
    redis.call('DEL', unpack(keys))
end

local function write_del(change)
    change.rev = change.now.last
    redis.call('SET', prefix .. ':tomb:' .. change.id, integer(change.rev),
        'PX', tombstone_ms)
    redis.call('DEL', prefix .. ':cfg:' .. change.id)
    redis.call('ZREM', prefix .. ':idx', change.id)
    if change.kind == 'rule' then
        forget_hits({ string.sub(change.id, #'rule:' + 1) })
    end
end

-- The last of the numbers that the changes got. All that could be wrong has
-- been looked at.
local function write(changes, actor)
    local last = redis.call('INCRBY', prefix .. ':seq', #changes)
    local now = epoch()
    local touched = {}
    for i, change in ipairs(changes) do
        local seq = last - #changes + i
        if change.op == 'del' then
            write_del(change)
        else
            write_set(change, seq)
        end
        audit_change(change, seq, actor)
        touched[change.kind] = seq
        log_entry(now, change, seq, actor, i < #changes)
    end
    for kind, seq in pairs(touched) do
        redis.call('HSET', prefix .. ':kinds', kind, integer(seq))
    end
    return last
end

-- A single change, as the reply to its call.
local function commit(change, class, why, actor)
    if type(class) == 'table' then
        return class
    end
    if class then
        return redis.error_reply(class .. ' ' .. why)
    end
    if not change then
        return false
    end
    local failed = wrong_type()
    if failed then
        return failed
    end
    local seq = write({ change }, actor)
    return { 'rev', change.rev, 'seq', seq, 'key', change.id }
end

local function set(args)
    local change, class, why = plan_set(args[1], args[2], args[3], args[4],
        args[6])
    return commit(change, class, why, args[5])
end

local function del(args)
    local change, class, why = plan_del(args[1], args[2], args[3])
    return commit(change, class, why, args[4])
end

-- How many words each change of a batch has, its first one included.
local words = { set = 6, del = 4, move = 5, at = 3 }

local function plan_at(kind, number)
    if not canonical[kind or ''] then
        return nil, 'CMINVALID', 'the kind must be ' .. kinds
    end
    if not string.find(number or '', '^%d+$') or #number > 15 then
        return nil, 'CMINVALID', 'the last change must be a number'
    end
    if tonumber(number) ~= last_of(kind) then
        return nil, 'CMCONFLICT', 'the last change of any ' .. kind .. ' is '
            .. integer(last_of(kind)) .. ', wanted it ' .. number
    end
    return nil
end

local function plan_word(args, at)
    local word = args[at]
    if not words[word or ''] then
        return nil, 'CMINVALID', 'a change begins with set, del, move or at'
    end
    if #args < at + words[word] - 1 then
        return nil, 'CMINVALID', word .. ' has ' .. words[word] - 1
            .. ' words after it'
    end
    if word == 'set' then
        return plan_set(args[at + 1], args[at + 2], args[at + 5],
            args[at + 3], args[at + 4])
    end
    if word == 'del' then
        return plan_del(args[at + 1], args[at + 2], args[at + 3])
    end
    if word == 'move' then
        return plan_move(args[at + 1], args[at + 2], args[at + 3],
            args[at + 4])
    end
    return plan_at(args[at + 1], args[at + 2])
end

-- The changes of a batch, planned; or nil and the reply that refuses it.
local function plan_batch(args)
    local changes, seen, bytes, number, at = {}, {}, 0, 0, 2
    while at <= #args do
        local change, class, why = plan_word(args, at)
        number = number + 1
        if change and seen[change.id] then
            class, why = 'CMINVALID', change.id .. ' is changed twice'
        elseif number > batch_changes_max then
            class, why = 'CMINVALID', 'a batch has at most '
                .. batch_changes_max .. ' changes'
        elseif change then
            bytes = bytes + #(change.doc or '')
            if bytes > batch_bytes_max then
                class, why = 'CMINVALID', 'the documents of a batch have at '
                    .. 'most ' .. batch_bytes_max .. ' bytes'
            end
        end
        if type(class) == 'table' then
            return nil, class
        end
        if class then
            return nil, redis.error_reply(
                class .. ' change ' .. number .. ': ' .. why)
        end
        if change then
            seen[change.id] = true
            changes[#changes + 1] = change
        end
        at = at + words[args[at]]
    end
    return changes
end

local function batch(args)
    local changes, refusal = nil, wrong_type()
    if not refusal then
        changes, refusal = plan_batch(args)
    end
    if refusal then
        return refusal
    end
    local seq = tonumber(redis.call('GET', prefix .. ':seq') or 0)
    if #changes > 0 then
        seq = write(changes, args[1])
    end
    return { 'changes', #changes, 'seq', seq }
end

-- How many there were. A thousand at a time, for that many arguments a call may
-- have; Redis serves nobody else until all are gone.
local function wipe_kind(kind, begin)
    local from = '[' .. kind .. ':' .. begin
    local to = '(' .. kind .. ':' .. begin .. '\255'
    local count = 0
    while true do
        local ids = redis.call('ZRANGEBYLEX', prefix .. ':idx', from, to,
            'LIMIT', 0, 1000)
        if #ids == 0 then
            return count
        end
        local keys, names = {}, {}
        for i, id in ipairs(ids) do
            keys[i] = prefix .. ':cfg:' .. id
            names[i] = string.sub(id, #kind + 2)
        end
        redis.call('UNLINK', unpack(keys))
        redis.call('ZREMRANGEBYLEX', prefix .. ':idx', '[' .. ids[1],
            '[' .. ids[#ids])
        if kind == 'rule' then
            forget_hits(names)
        end
        count = count + #ids
    end
end

local function plan_wipe(args)
    local plans = {}
    for i = 2, #args, 2 do
        local kind, begin = args[i], args[i + 1]
        if not canonical[kind] then
            return nil, 'the kind must be ' .. kinds
        end
        if not begin or #begin > 320
            or string.find(begin, '[%z\1-\31\127]') then
            return nil, 'after each kind comes how the names begin'
        end
        plans[#plans + 1] = { op = 'wipe', kind = kind, begin = begin,
            id = kind .. ':' .. begin }
    end
    if #plans == 0 then
        return nil, 'a kind is missing'
    end
    return plans
end

local function wipe(args)
    local plans, why = plan_wipe(args)
    if not plans then
        return invalid(why)
    end
    local failed = wrong_type()
    if failed then
        return failed
    end
    local last = redis.call('INCRBY', prefix .. ':seq', #plans)
    redis.call('SET', prefix .. ':floor', integer(last))
    local now, counts = epoch(), {}
    for i, plan in ipairs(plans) do
        local seq = last - #plans + i
        counts[i] = wipe_kind(plan.kind, plan.begin)
        redis.call('HSET', prefix .. ':kinds', plan.kind, integer(seq))
        audit('audit', args[1], 'wipe', plan.id .. '*',
            { 'seq', integer(seq), 'count', integer(counts[i]) })
        log_entry(now, plan, seq, args[1], i < #plans)
    end
    return { 'seq', last, 'counts', counts }
end

local function get(args)
    local id, why = identify(args[1], args[2])
    if not id then
        return invalid(why)
    end
    return redis.call('GET', prefix .. ':cfg:' .. id)
end

local function list(args)
    local kind, begin, after = args[1], args[2] or '', args[3] or ''
    local limit = tonumber(args[4] or '100')
    if not canonical[kind or ''] then
        return invalid('the kind must be ' .. kinds)
    end
    if not limit or limit < 1 or limit > 10000 or limit % 1 ~= 0 then
        return invalid('the limit must be 1 to 10000')
    end
    local head = kind .. ':'
    local from = '[' .. head .. begin
    if after ~= '' and after >= begin then
        from = '(' .. head .. after
    end
    local names = redis.call('ZRANGEBYLEX', prefix .. ':idx', from,
        '(' .. head .. begin .. '\255', 'LIMIT', 0, limit)
    for i, id in ipairs(names) do
        names[i] = string.sub(id, #head + 1)
    end
    return names
end

-- Names and documents of a kind in byte order of the names, of those that begin
-- so and come after one, as many as fit into one reply, with the number of the kind's last change. A document that cannot
-- be read is an empty text.
local function read(args)
    local kind, after, begin = args[1], args[2] or '', args[3] or ''
    local limit = tonumber(args[4] or read_documents_max)
    if not canonical[kind or ''] then
        return invalid('the kind must be ' .. kinds)
    end
    if not limit or limit < 1 or limit > read_documents_max
        or limit % 1 ~= 0 then
        return invalid('the limit must be 1 to ' .. read_documents_max)
    end
    local found, bytes = {}, 0
    local more = 0
    local from = '[' .. kind .. ':' .. begin
    if after ~= '' and after >= begin then
        from = '(' .. kind .. ':' .. after
    end
    local ids = redis.call('ZRANGEBYLEX', prefix .. ':idx', from,
        '(' .. kind .. ':' .. begin .. '\255', 'LIMIT', 0, limit + 1)
    for i, id in ipairs(ids) do
        if i > limit or bytes > read_bytes_max then
            more = 1
            break
        end
        local text = redis.pcall('GETRANGE', prefix .. ':cfg:' .. id, 0,
            doc_bytes_max + 96)
        found[#found + 1] = string.sub(id, #kind + 2)
        found[#found + 1] = type(text) == 'string' and text or ''
        bytes = bytes + #found[#found]
    end
    return { 'at', last_of(kind), 'more', more, 'documents', found }
end

local function seq()
    return { 'epoch', redis.call('GET', prefix .. ':epoch'),
        'seq', tonumber(redis.call('GET', prefix .. ':seq') or 0) }
end

-- The halt is the last entry of a stream of its own, not a document: every
-- filter waits for it on a link that does nothing else, so it is obeyed at once
-- even while a million documents are on their way. Whatever else somebody put
-- under its name gives way, for a halt must not fail.

local halt_key = prefix .. ':halt'
local reason_bytes_max = 256

local function halted()
    local kind = redis.call('TYPE', halt_key).ok
    if kind ~= 'none' and kind ~= 'stream' then
        return redis.error_reply('WRONGTYPE ' .. halt_key .. ' holds a '
            .. kind .. ', expected a stream')
    end
    return redis.call('XREVRANGE', halt_key, '+', '-', 'COUNT', 1)
end

local function is_halted(last)
    if not last[1] then
        return false
    end
    local fields = last[1][2]
    for i = 1, #fields, 2 do
        if fields[i] == 'state' then
            return fields[i + 1] ~= 'running'
        end
    end
    return true
end

-- Halting what is halted keeps who did it, and when.
local function switch(state, reason, actor)
    if #reason > reason_bytes_max or string.find(reason, '[%z\1-\31\127]') then
        return invalid('the reason must have at most ' .. reason_bytes_max
            .. ' bytes and no control characters')
    end
    local last = halted()
    if last.err then
        redis.call('DEL', halt_key)
        last = {}
    end
    -- Without an entry a filter goes by what it knew, so even "running" is news.
    if not last[1] or is_halted(last) ~= (state == 'halted') then
        redis.call('XADD', halt_key, 'MAXLEN', 1, '*', 'state', state,
            'at', milliseconds(),
            'by', actor ~= '' and string.sub(actor, 1, 128) or 'redis',
            'reason', reason)
        last = halted()
        -- A broken audit is no reason not to halt.
        pcall(audit, 'audit', actor, state == 'halted' and 'halt' or 'resume',
            'halt', { 'reason', reason })
    end
    return last
end

local function halt(args)
    return switch('halted', args[1] or '', args[2] or '')
end

local function resume(args)
    return switch('running', '', args[1] or '')
end

-- API keys, by a public id: the digest of the secret, and a document that says
-- whose it is. The audit has the document alone.

local keys_max = 1000

local function wrong_type_of_keys()
    local found = redis.call('TYPE', prefix .. ':keys').ok
    if found ~= 'none' and found ~= 'hash' then
        return redis.error_reply('WRONGTYPE ' .. prefix .. ':keys holds a '
            .. found .. ', expected a hash')
    end
    return wrong_type()
end

local function key_add(args)
    local actor, id, digest = args[1], args[2], args[3]
    local doc, why = check_document(args[4])
    if not string.find(id or '', '^%x%x%x%x%x%x%x%x$')
        or not string.find(digest or '', '^' .. string.rep('%x', 64) .. '$') then
        return invalid('a key has an id of 8 and a digest of 64 hex digits')
    end
    if not doc then
        return invalid(why)
    end
    local failed = wrong_type_of_keys()
    if failed then
        return failed
    end
    if redis.call('HLEN', prefix .. ':keys') >= keys_max then
        return invalid('there are ' .. keys_max .. ' keys already')
    end
    if redis.call('HSETNX', prefix .. ':keys', id,
        'sha256:' .. digest .. ' ' .. doc) == 0 then
        return redis.error_reply('CMCONFLICT key ' .. id .. ' is there already')
    end
    audit('audit', actor, 'set', 'key:' .. id, { 'after', doc })
    return { 'id', id }
end

local function key_del(args)
    local actor, id = args[1], args[2]
    local failed = wrong_type_of_keys()
    if failed then
        return failed
    end
    local value = redis.call('HGET', prefix .. ':keys', id or '')
    if not value then
        return false
    end
    audit('audit', actor, 'del', 'key:' .. id,
        { 'before', string.match(value, '^sha256:%x+ (.*)$') or false })
    redis.call('HDEL', prefix .. ':keys', id)
    return { 'id', id }
end

-- A function library when Redis loads it as one (pairs and its like are not
-- there yet at that time); otherwise a script that is told the function's name
-- in its first argument.
if redis.register_function then
    local function register(name, run, flags)
        redis.register_function({
            function_name = name,
            callback = function(_, args) return run(args) end,
            flags = flags,
        })
    end
    register('cm_set', set, {})
    register('cm_del', del, {})
    register('cm_get', get, { 'no-writes' })
    register('cm_list', list, { 'no-writes' })
    register('cm_read', read, { 'no-writes' })
    register('cm_batch', batch, {})
    register('cm_wipe', wipe, { 'allow-oom' })
    register('cm_seq', seq, { 'no-writes' })
    register('cm_halt', halt, { 'allow-oom' })
    register('cm_resume', resume, { 'allow-oom' })
    register('cm_halted', halted, { 'no-writes' })
    return
end

local commands = { set = set, del = del, get = get, list = list, read = read,
    seq = seq, batch = batch, wipe = wipe, halt = halt, resume = resume,
    halted = halted, key_add = key_add, key_del = key_del }
local command = commands[ARGV[1] or '']
if not command then
    return invalid('the first argument must be a function\'s name, such as set')
end
table.remove(ARGV, 1)
return command(ARGV)
