package main

import "slices"

// Mistakes in the drivers, and in what stands between them and the engine.

var inBackend = []mistake{
	{
		name: "Create is tried again below the engine",
		file: "backend/retry.go",
		old:  `return s.store.Create(ctx, key, data)`,
		new: `var o Object
	err := s.try(ctx, func(ctx context.Context) (err error) {
		o, err = s.store.Create(ctx, key, data)
		return err
	})
	return o, err`,
		breaks: "I1, I3",
		tests:  by("backend", "TestRetryNeverRepeatsCreate"),
	},
	{
		name:   "a listing that failed begins again",
		file:   "backend/retry.go",
		old:    `after, n = o.Key, 1`,
		new:    `_ = o.Key`,
		breaks: "A2",
		tests:  by("backend", "TestRetryGoesOnWithList"),
	},
}

var onDisk = []mistake{
	{
		name:   "a store that must exist is made on an empty mount point",
		file:   "local/store.go",
		old:    `err = s.checkWritten(root)`,
		new:    `err = nil`,
		breaks: "must_exist",
		tests:  by("local", "TestMustExist"),
	},
	{
		name:   "a store that must exist is made where there is no directory",
		file:   "local/store.go",
		old:    `case errors.Is(err, fs.ErrNotExist) && s.mustExist:`,
		new:    `case false:`,
		breaks: "must_exist",
		tests:  by("local", "TestMustExist"),
	},
	{
		name:   "Create renames",
		file:   "local/store.go",
		old:    `s.write(ctx, key, data, (*draft).link)`,
		new:    `s.write(ctx, key, data, (*draft).rename)`,
		breaks: "A1",
		tests:  by("local", "TestCreateRace", "TestProcessesRace"),
	},
	{
		name: "Create looks, and then renames",
		file: "local/publish.go",
		old:  `return d.root.Link(d.temp, d.key) })`,
		new: `if _, err := d.root.Lstat(d.key); err == nil {
			return fs.ErrExist
		}
		return d.root.Rename(d.temp, d.key)
	})`,
		breaks: "A1",
		tests:  by("local", "TestKeyIsTakenMeanwhile", "TestCreateRace", "TestProcessesRace"),
	},
	{
		name:   "the data is not fsynced",
		file:   "local/publish.go",
		old:    `if err := d.step("sync", d.temp, d.file.Sync); err != nil {`,
		new:    `if err := ctx.Err(); err != nil {`,
		breaks: "A1",
		tests:  by("local", "TestPowerLoss", "TestSteps"),
	},
	{
		name: "the directory is not fsynced",
		file: "local/publish.go",
		old: `d.discard()
	if err := d.syncDir(); err != nil {
		return time.Time{}, err
	}
	return changeTime(info), nil`,
		new: `d.discard()
	return changeTime(info), nil`,
		breaks: "A1",
		tests:  by("local", "TestPowerLoss", "TestSteps"),
	},
	{
		name: "what another process made is not fsynced before it is said to exist",
		file: "local/publish.go",
		old: `if err := d.syncDir(); err != nil {
		return err
	}
	return errTaken`,
		new:    `return errTaken`,
		breaks: "A1",
		tests:  by("local", "TestPowerLoss", "TestSteps"),
	},
	{
		name:   "a directory that was there is taken for durable",
		file:   "local/directory.go",
		old:    `err = checkDir(root, dir)`,
		new:    `return checkDir(root, dir)`,
		breaks: "A1",
		tests:  by("local", "TestPowerLoss", "TestSteps"),
	},
	{
		name: "a directory is durable before it is fsynced",
		file: "local/directory.go",
		old: `if err := s.syncDir(parent, root.Open); err != nil {
		return err
	}
	s.setDurable(dir)`,
		new: `s.setDurable(dir)
	if err := s.syncDir(parent, root.Open); err != nil {
		return err
	}`,
		breaks: "A1",
		tests:  by("local", "TestDirectoryWhoseFsyncFailed"),
	},
	{
		name:   "the directories above the store's are fsynced if they were made",
		file:   "local/directory.go",
		old:    `for dir != filepath.Dir(dir) {`,
		new:    `for dir != filepath.Dir(dir) && len(missing) > 0 {`,
		breaks: "A1",
		tests:  by("local", "TestPowerLoss", "TestStepsAboveTheDirectory"),
	},
	{
		name:   "directories that were removed stay durable",
		file:   "local/directory.go",
		old:    `clear(s.durable)`,
		new:    ``,
		breaks: "A1",
		tests:  by("local", "TestSubdirectoriesDisappear"),
	},
	{
		name: "a link whose reply was lost is another's",
		file: "local/publish.go",
		old: `case ours:
		return nil
	case !errors.Is(failed, fs.ErrExist):`,
		new: `case ours && failed == nil:
		return nil
	case !errors.Is(failed, fs.ErrExist):`,
		breaks: "I3",
		tests:  by("local", "TestLostReply"),
	},
	{
		name:   "an object's time is that of its data",
		file:   "local/publish.go",
		old:    `return changeTime(info), nil`,
		new:    `return info.ModTime(), nil`,
		breaks: "A4",
		tests:  by("local", "TestTimeIsThatOfTheKey"),
	},
	{
		name: "an object's time is taken when its temporary name is gone",
		file: "local/publish.go",
		old: `return changeTime(info), nil
}`,
		new: `if info, err = d.root.Stat(d.key); err != nil {
		return time.Time{}, err
	}
	return changeTime(info), nil
}`,
		breaks: "A4",
		tests:  by("local", "TestTimeIsThatOfTheKey"),
	},
	{
		name: "temporary files of the living are swept",
		file: "local/sweep.go",
		old: `if err != nil {
			continue
		}
		t.remove(id)`,
		new: `if err != nil {
			t.remove(id)
			continue
		}
		t.remove(id)`,
		breaks: "A1",
		tests:  by("local", "TestSweepSparesTheLiving"),
	},
	{
		name:   "a directory that was replaced is written to all the same",
		file:   "local/store.go",
		old:    ` || err == nil && !os.SameFile(now, s.info)):`,
		new:    `):`,
		breaks: "A1",
		tests:  by("local", "TestDirectoryDisappears"),
	},
	{
		name: "a directory is listed in the order of its name without the slash",
		file: "local/list.go",
		old: `copy(names, names[1:i])
			names[i-1] = name + "/"`,
		new: `_ = i
			names[0] = name + "/"`,
		breaks: "I2",
		tests:  by("local", "TestListProperty"),
	},
}

var inS3 = []mistake{
	{
		name:   "Create is a Put",
		file:   "s3/s3.go",
		old:    `return s.write(ctx, "create", key, data, aws.String("*"))`,
		new:    `return s.write(ctx, "create", key, data, nil)`,
		breaks: "A1",
		tests:  by("s3", "TestCreateOnTheWire"),
	},
	{
		name:   "the SDK tries a Create again",
		file:   "s3/s3.go",
		old:    `o.Retryer = aws.NopRetryer{}`,
		new:    ``,
		breaks: "I3",
		tests:  by("s3", "TestReplyLost"),
	},
	{
		name:   "409 is taken for \"exists\"",
		file:   "s3/errors.go",
		old:    `"NotFound": {advice:`,
		new:    `"ConditionalRequestConflict": {kind: backend.ErrExist}, "NotFound": {advice:`,
		breaks: "I4",
		tests:  by("s3", "TestCodes"),
	},
	{
		name:   "a missing bucket is an object that does not exist",
		file:   "s3/errors.go",
		old:    `"NoSuchBucket":                       {backend.ErrNoStore,`,
		new:    `"NoSuchBucket":                       {backend.ErrNotExist,`,
		breaks: "I3",
		tests:  by("s3", "TestCodes"),
	},
	{
		name:   "a refused condition on a Put is \"exists\"",
		file:   "s3/errors.go",
		old:    `case code == "PreconditionFailed" && op == "create":`,
		new:    `case code == "PreconditionFailed":`,
		breaks: "I3",
		tests:  by("s3", "TestCodes"),
	},
	{
		name:   "a listing out of order is taken as it comes",
		file:   "s3/list.go",
		old:    `if key <= last || !strings`,
		new:    `if key == last || !strings`,
		breaks: "I2",
		tests:  by("s3", "TestListRefusesDisorder"),
	},
	{
		name:   "a write without a Date is taken for one, and has no time",
		file:   "s3/s3.go",
		old:    `if !ok {`,
		new:    `if !ok && key == "" {`,
		breaks: "I5",
		tests:  by("s3", "TestDateMissing", "TestClockSkew"),
	},
	{
		name:   "a proxy's page is a write's answer",
		file:   "s3/s3.go",
		old:    `s.options.Checksum.sign, checked(checkWriteAnswer))`,
		new:    `s.options.Checksum.sign)`,
		breaks: "I3",
		tests:  by("s3", "TestNoWrite"),
	},
	{
		name: "keys that a batch did not delete are not told of",
		file: "s3/delete.go",
		old:  `return s.deleteErrors(ctx, out)`,
		new: `_ = out
	return nil`,
		breaks: "I7",
		tests:  by("s3", "TestDeletePartialFailure"),
	},
}

var inGCS = []mistake{
	{
		name:   "Create is a Put",
		file:   "gcs/gcs.go",
		old:    `IfNotExist:   exclusive,`,
		new:    `IfNotExist:   exclusive && s == nil,`,
		breaks: "A1",
		tests:  by("gcs", "TestWriteOnTheWire"),
	},
	{
		name:   "the SDK tries a request again",
		file:   "gcs/gcs.go",
		old:    `s.client.SetRetry(storage.WithPolicy(storage.RetryNever))`,
		new:    ``,
		breaks: "I3",
		tests:  by("gcs", "TestReplyLost", "TestOnlyOneRequest", "TestListPageFails", "TestDeletePartialFailure", "TestAnswers"),
	},
	{
		name: "409 is taken for \"exists\"",
		file: "gcs/errors.go",
		old:  `case status == http.StatusPreconditionFailed:`,
		new: `case status == http.StatusConflict:
		f.kind = backend.ErrExist
	case status == http.StatusPreconditionFailed:`,
		breaks: "I4",
		tests:  by("gcs", "TestAnswers"),
	},
	{
		name:   "a missing bucket is an object that does not exist",
		file:   "gcs/errors.go",
		old:    `case ofObject && (op == "get" || op == "delete"):`,
		new:    `case op == "get" || op == "delete":`,
		breaks: "I3",
		tests:  by("gcs", "TestAnswers"),
	},
	{
		name:   "what a service stored is not compared with what was sent",
		file:   "gcs/gcs.go",
		old:    `if attrs.CRC32C != sum || attrs.Size != int64(len(data)) {`,
		new:    `if attrs.Size < 0 {`,
		breaks: "A1",
		tests:  by("gcs", "TestWriteChecksTheAnswer"),
	},
}

var overHTTP = []mistake{
	{
		name:   "an upload that was cut off looks complete",
		file:   "internal/httpclient/watch.go",
		old:    `if ended := b.watch.ended(); ended != nil {`,
		new:    `if ended := b.watch.ended(); ended != nil && n == 0 && err == nil {`,
		breaks: "A1",
		tests: slices.Concat(
			by("internal/httpclient", "TestStalledBodyNeverLooksWhole"),
			by("gcs", "TestCancelledUploadNeverLooksWhole")),
	},
	{
		name:   "a request that moves a byte now and then goes on",
		file:   "internal/httpclient/watch.go",
		old:    `if w.bytes < w.limits.quota() {`,
		new:    `if w.bytes == 0 {`,
		breaks: "a call comes to its end",
		tests:  slices.Concat(by("internal/httpclient", "TestTrickle"), by("s3", "TestTrickle"), by("gcs", "TestTrickle")),
	},
	{
		name:   "a request that began fast may trickle",
		file:   "internal/httpclient/watch.go",
		old:    `w.since, w.bytes = time.Now(), 0`,
		new:    `w.since = time.Now()`,
		breaks: "a call comes to its end",
		tests:  by("internal/httpclient", "TestTrickleAfterBurst"),
	},
	{
		name:   "a slow link is taken for a trickle",
		file:   "internal/httpclient/watch.go",
		old:    `w.bytes += int64(n)`,
		new:    `w.bytes++`,
		breaks: "a call comes to its end",
		tests:  by("internal/httpclient", "TestSlowLink"),
	},
	{
		name:   "what waits in the system's buffer is taken for sent",
		file:   "internal/httpclient/transport.go",
		old:    `, Control: boundUnsent}`,
		new:    `}`,
		breaks: "a call comes to its end",
		tests:  by("internal/httpclient", "TestUnsentIsBounded"),
	},
	{
		name:   "a list without end is read",
		file:   "internal/httpclient/watch.go",
		old:    `if req.Header.Get("Range") != "" {`,
		new:    `if req != nil {`,
		breaks: "a call comes to its end",
		tests:  by("internal/httpclient", "TestEndlessAnswer"),
	},
}
