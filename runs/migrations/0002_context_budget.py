from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0001_initial")]

    operations = [
        migrations.AddField(model_name="run", name="context_budget_tokens", field=models.IntegerField(null=True)),
    ]
