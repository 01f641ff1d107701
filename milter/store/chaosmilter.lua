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
--   cm_set  kind name document [revision] [actor]
--   cm_get  kind name
--   cm_del  kind name [revision] [actor]
--   cm_list kind [prefix] [after] [limit]
--   cm_seq
--
-- kind is inbox, rule or box. revision is * (any), 0 (only if there is nothing
-- yet) or the number that must be there. Errors begin with CMINVALID (the call
-- is wrong) or CMCONFLICT (the revision is another one).
--
-- What may be wrong is looked at before the first write, and the first write is
-- one that Redis refuses when it is out of memory, so nothing is half applied.

-- The daemons replace these two by their settings redis.prefix and
-- address.local_part_case when they load this file.
local prefix = '{cm}'
local fold_local = true

local doc_bytes_max = 65536
local log_doc_bytes_max = 4096
local log_entries = 100000
local tombstone_ms = 24 * 3600 * 1000

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

local canonical = {
    inbox = canonical_address,
    box = canonical_address,
    rule = canonical_rule,
}

-- "inbox:a@example.com", or nil and what is wrong.
local function identify(kind, name)
    if not canonical[kind or ''] then
        return nil, 'the kind must be inbox, rule or box'
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
        return { there = true, rev = rev, last = rev, ord = ord }
    end
    local last = redis.call('GET', prefix .. ':tomb:' .. id)
    local orphan = redis.call('ZSCORE', prefix .. ':idx', id)
    return {
        there = false,
        orphan = orphan and true or false,
        rev = 0,
        last = tonumber(last or 0) or 0,
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
    return redis.error_reply(
        'CMCONFLICT ' .. id .. ' ' .. is .. ', wanted it ' .. wish)
end

-- Anybody may have put anything under our names; find out before writing.
local function wrong_type()
    local types = { seq = 'string', epoch = 'string', idx = 'zset',
        log = 'stream' }
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

local function log_entry(seq, op, id, doc, actor)
    local entry = { prefix .. ':log', 'MAXLEN', '~', log_entries, '*',
        'epoch', epoch(), 'seq', integer(seq), 'op', op, 'key', id }
    if doc and #doc <= log_doc_bytes_max then
        entry[#entry + 1] = 'doc'
        entry[#entry + 1] = doc
    end
    if actor and actor ~= '' then
        entry[#entry + 1] = 'actor'
        entry[#entry + 1] = string.sub(actor, 1, 128)
    end
    redis.call('XADD', unpack(entry))
end

local function set(args)
    local id, why = identify(args[1], args[2])
    local doc
    if id then
        doc, why = check_document(args[3])
    end
    local want = wanted_revision(args[4])
    if not doc then
        return invalid(why)
    end
    if want == false then
        return invalid('the revision must be *, 0 or a number')
    end
    local now, failed = current(id)
    failed = failed or wrong_type()
    if failed then
        return failed
    end
    if want and (want ~= now.rev or (want == 0 and now.there)) then
        return conflict(id, now, want)
    end

    local seq = redis.call('INCR', prefix .. ':seq')
    local rev = now.last + 1
    local text = '{"rev":' .. integer(rev) .. ',"seq":' .. integer(seq)
    if args[1] == 'rule' then
        text = text .. ',"ord":' .. (now.ord or integer(seq))
    end
    text = text .. ',"doc":' .. doc .. '}'
    redis.call('SET', prefix .. ':cfg:' .. id, text)
    redis.call('ZADD', prefix .. ':idx', 0, id)
    redis.call('DEL', prefix .. ':tomb:' .. id)
    log_entry(seq, 'set', id, text, args[5])
    return { 'rev', rev, 'seq', seq, 'key', id }
end

local function del(args)
    local id, why = identify(args[1], args[2])
    local want = wanted_revision(args[3])
    if not id then
        return invalid(why)
    end
    if want == false then
        return invalid('the revision must be *, 0 or a number')
    end
    local now, failed = current(id)
    failed = failed or wrong_type()
    if failed then
        return failed
    end
    if not now.there and not now.orphan then
        return false
    end
    if want and want ~= now.rev then
        return conflict(id, now, want)
    end

    local seq = redis.call('INCR', prefix .. ':seq')
    redis.call('SET', prefix .. ':tomb:' .. id, integer(now.last), 'PX',
        tombstone_ms)
    redis.call('DEL', prefix .. ':cfg:' .. id)
    redis.call('ZREM', prefix .. ':idx', id)
    log_entry(seq, 'del', id, nil, args[4])
    return { 'rev', now.last, 'seq', seq, 'key', id }
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
        return invalid('the kind must be inbox, rule or box')
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

local function seq()
    return { 'epoch', redis.call('GET', prefix .. ':epoch'),
        'seq', tonumber(redis.call('GET', prefix .. ':seq') or 0) }
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
    register('cm_seq', seq, { 'no-writes' })
    return
end

local commands = { set = set, del = del, get = get, list = list, seq = seq }
local command = commands[ARGV[1] or '']
if not command then
    return invalid('the first argument must be set, del, get, list or seq')
end
table.remove(ARGV, 1)
return command(ARGV)
